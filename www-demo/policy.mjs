// The content security policy of the demo page: its own three origins, and what a visitor's own keys need besides.

/** What each vendor's widget needs, when the address has a key for it. docs/CHECKS.md has the same. */
const VENDORS = {
  hcaptchaSiteKey: 'https://hcaptcha.com https://*.hcaptcha.com',
  recaptchaSiteKey: 'https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/',
  recaptchaEnterpriseSiteKey: 'https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/',
  turnstileSiteKey: 'https://challenges.cloudflare.com',
  friendlyCaptchaSiteKey: 'https://cdn.jsdelivr.net https://*.frcapi.com',
  fingerprintPublicAPIKey: 'https://fpjscdn.net https://*.fpjs.io',
}

/**
 * @param {any} settings those of the demo; undefined until all of it runs
 * @param {URLSearchParams} query of the page's address
 */
export function contentSecurityPolicy(settings, query) {
  const own = [query.get('approovHost'), query.get('apiUrl')].flatMap(originOf)
  const vendors = Object.keys(VENDORS)
    .filter((name) => query.get(name))
    .map((name) => VENDORS[name])
  const servers = settings ? [settings.approovHost, new URL(settings.apiUrl).origin] : []
  return [
    "default-src 'none'",
    ["script-src 'self' 'wasm-unsafe-eval'", ...servers.slice(0, 1), ...vendors].join(' '),
    ["connect-src 'self'", ...servers, ...own, ...vendors].join(' '),
    ["frame-src 'self'", ...vendors].join(' '),
    vendors.length > 0 ? "style-src 'self' 'unsafe-inline'" : "style-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'self'",
    // Scripts of the vendors know nothing of Trusted Types.
    ...(vendors.length > 0
      ? []
      : ["require-trusted-types-for 'script'", "trusted-types approov-checks 'allow-duplicates'"]),
  ].join('; ')
}

/** The origin of a host or URL; none of what is neither. */
function originOf(value) {
  if (!value) return []
  const text = value.includes('://') ? value : `https://${value}`
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) ? [new URL(text).origin] : []
}
