/**
 * The check services, for `renew` of `Approov.createFetch`. Each loads its vendor's script when it runs first, unless it is there already.
 * Types need the library `DOM`.
 */
import type { Check } from './approov.js'

export interface CheckOptions {
  /** Site key. Default: that of the session. */
  siteKey?: string
  /** Nonce of the content security policy for the script. Default: that of the page's first script with one. */
  nonce?: string
  /** How long the script may take to load, and the check to answer where nobody is asked, in milliseconds. Default: 10,000. */
  timeout?: number
  /** Address of the script or agent, in place of the vendor's. */
  url?: string
}

export interface WidgetOptions extends CheckOptions {
  /** Where the widget goes: a selector, an element, or what gives one. Default: an element at the lower right, there while needed. */
  container?: string | Element | (() => Element)
  theme?: 'light' | 'dark' | 'auto'
}

/** hCaptcha. Whoever has to click has until the signal of the context. */
export function hcaptcha(
  options?: WidgetOptions & { /** Default: `invisible`. */ size?: 'invisible' | 'normal' | 'compact' },
): Check

/** reCAPTCHA v3. For v2, write `renew` yourself. */
export function recaptcha(options: CheckOptions & { action: string }): Check

/** reCAPTCHA Enterprise, with a key for scores. */
export function recaptchaEnterprise(options: CheckOptions & { action: string }): Check

/** Cloudflare Turnstile. Whoever has to click has until the signal of the context. */
export function turnstile(
  options?: WidgetOptions & {
    action?: string
    /** Default: `interaction-only`. */
    appearance?: 'always' | 'execute' | 'interaction-only'
  },
): Check

/** Fingerprint, agent v4. */
export function fingerprint(
  options?: CheckOptions & {
    /** Default: `us`. */
    region?: 'us' | 'eu' | 'ap'
    /** Addresses of your own through which the agent works. */
    endpoints?: readonly string[]
  },
): Check

/** Friendly Captcha, version 2. */
export function friendlyCaptcha(
  options?: WidgetOptions & { /** Default: `global`. */ endpoint?: 'global' | 'eu' },
): Check

/** ALTCHA: the SDK solves a challenge of the service. */
export function altcha(): Check

/** One check after the other until one passes: not after one that the visitor has cancelled, nor after an abort. */
export function firstOf(...checks: [Check, ...Check[]]): Check
