// The checks that the page offers: all of docs/CHECKS.md, run by the SDK's own `checks`.
import { checks } from '/approov.js'

/**
 * Each check: the demo's setting with its key, the option of `initializeSession` that takes it, whether it has a widget, and
 * the SDK's function with its options. `simulated`: where its script is when the service plays the vendor.
 */
export const CHECKS = {
  altcha: {
    key: 'altchaSiteKey',
    renew: checks.altcha,
    what: 'No third party: the service sets a puzzle, and the browser solves it.',
  },
  hcaptcha: {
    key: 'hcaptchaSiteKey',
    hasWidget: true,
    renew: checks.hcaptcha,
    // Its box is there to be clicked; without one, hCaptcha shows a challenge only to those that it doubts.
    clickOptions: { size: 'normal' },
    simulated: 'hcaptcha/1/api.js?render=explicit&recaptchacompat=off',
    what: 'A widget asks the visitor, and hCaptcha judges.',
  },
  recaptcha: {
    key: 'recaptchaSiteKey',
    renew: checks.recaptcha,
    options: { action: 'demo' },
    simulated: 'recaptcha/api.js?render=explicit',
    what: 'Nothing is seen: Google gives the visit a score.',
  },
  recaptchaEnterprise: {
    key: 'recaptchaEnterpriseSiteKey',
    option: 'recaptchaSiteKey',
    renew: checks.recaptchaEnterprise,
    options: { action: 'demo' },
    simulated: 'recaptcha/enterprise.js?render=explicit',
    what: 'Nothing is seen: Google Cloud gives the visit a score.',
  },
  turnstile: {
    key: 'turnstileSiteKey',
    hasWidget: true,
    renew: checks.turnstile,
    options: { action: 'demo', appearance: 'always' },
    simulated: 'turnstile/v0/api.js?render=explicit',
    what: 'A widget of Cloudflare looks at the browser.',
  },
  friendly: {
    key: 'friendlyCaptchaSiteKey',
    hasWidget: true,
    renew: checks.friendlyCaptcha,
    simulated: 'friendly/site.js',
    what: 'A widget solves a puzzle of Friendly Captcha.',
  },
  fingerprint: {
    key: 'fingerprintPublicAPIKey',
    renew: checks.fingerprint,
    simulated: (key) => `fingerprint/v4/${encodeURIComponent(key)}`,
    what: 'Nothing is seen: an agent recognises browser and bots.',
  },
}

/**
 * The SDK's check for a key.
 *
 * @param {any} check one of {@link CHECKS} @param {string} siteKey
 * @param {{simulators?: string, container?: Element, asksForClick?: boolean}} options where the simulators are, if the
 *   vendor is simulated; where a widget goes, and whether it asks for a click whoever comes
 */
export function renewOf(
  { renew, options, clickOptions, simulated, hasWidget },
  siteKey,
  { simulators, container, asksForClick },
) {
  const path = typeof simulated === 'function' ? simulated(siteKey) : simulated
  return renew({
    ...options,
    ...(asksForClick && clickOptions),
    siteKey,
    ...(simulators && path && { url: `${simulators}/${path}` }),
    ...(hasWidget && container && { container }),
  })
}
