/**
 * The checks of a page, as `renew` functions of `Approov.createFetch`: each loads the script of its check service when it is run, passes
 * the challenge, and resolves to what `fetchToken` takes.
 *
 * Making a check does nothing; it throws `invalid-argument` for unusable options. Running one rejects with an
 * {@link ApproovCheckError}, with the reason of the context's signal when that is aborted, or with `invalid-argument` where neither the
 * check nor the session has a site key. Runs of one check service take turns. Whatever the end is, the widget is taken down.
 */
import type { Check } from './approov.js'

export interface CheckOptions {
  /** Default: that of the session, which the context names. */
  siteKey?: string
  /** Nonce of the page's content security policy. Default: of the first `script[nonce]`. */
  nonce?: string
  /** Milliseconds for the script, and as many for an answer where no person is asked. Default: 10,000. */
  timeout?: number
  /** Address of the script, in place of the check service's own, with all parameters. */
  url?: string
}

export interface WidgetOptions extends CheckOptions {
  /**
   * Where the widget is shown while it is needed: an element, the selector of one, or a function that returns one. Default: the lower right
   * corner of the window.
   */
  container?: string | Element | (() => Element)
  /** Default: as the check service has it. */
  theme?: 'light' | 'dark' | 'auto'
}

/**
 * hCaptcha, loaded with `recaptchacompat=off`. A person who is asked has until the context's signal is aborted; closing the challenge is
 * `check-cancelled`.
 */
export function hcaptcha(
  options?: WidgetOptions & {
    /** Default: `invisible`, which shows a challenge only where one is needed. */
    size?: 'invisible' | 'normal' | 'compact'
  },
): Check

/** reCAPTCHA v3. For v2, write a function of your own. */
export function recaptcha(options: CheckOptions & { action: string }): Check

/** reCAPTCHA Enterprise, with a score key; it stands beside reCAPTCHA v3. */
export function recaptchaEnterprise(options: CheckOptions & { action: string }): Check

/** Cloudflare Turnstile. */
export function turnstile(
  options?: WidgetOptions & {
    action?: string
    /** Default: `interaction-only`. */
    appearance?: 'always' | 'execute' | 'interaction-only'
  },
): Check

/** Fingerprint, with its agent version 4, imported as a module. */
export function fingerprint(
  options?: CheckOptions & {
    /** Default: `us`. */
    region?: 'us' | 'eu' | 'ap'
    /** Addresses of your own that lead to Fingerprint. */
    endpoints?: readonly string[]
  },
): Check

/** Friendly Captcha, version 2. */
export function friendlyCaptcha(
  options?: WidgetOptions & {
    /** Default: `global`. */
    endpoint?: 'global' | 'eu'
  },
): Check

/** ALTCHA: the SDK solves a challenge of the service. Nothing is loaded. */
export function altcha(): Check

/**
 * The first of these checks that can be passed, one after the other; rejects as the last one does. None is tried after one that the visitor
 * cancelled (`check-cancelled`), nor after the signal was aborted.
 */
export function firstOf(...checks: [Check, ...Check[]]): Check
