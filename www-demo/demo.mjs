// The demo: site, service and protected API, each on an origin of its own.
import { fileURLToPath } from 'node:url'

import { serveSite, startProtectedApi, startService } from './stack.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/**
 * Starts all three.
 *
 * @param {{port?: number, onRequest?: (entry: object) => void}} [options] port of the site (0: any); the service's request log
 */
export async function startDemo({ port = 0, onRequest } = {}) {
  let settings
  const site = await serveSite({
    port,
    mounts: { '/': here('public'), '/approov.js': here('../dist/approov.js') },
    routes: { '/settings.json': () => settings },
  })
  const service = await startService({ onRequest })
  const api = await startProtectedApi({ secret: service.account.secret, allowOrigin: site.url })
  settings = {
    approovHost: service.url,
    approovSiteKey: service.account.site_key,
    hcaptchaSiteKey: service.account.hcaptcha_site_key,
    recaptchaSiteKey: service.account.recaptcha_site_key,
    fingerprintPublicAPIKey: service.account.fingerprint_public_api_key,
    turnstileSiteKey: service.account.turnstile_site_key,
    friendlyCaptchaSiteKey: service.account.friendly_site_key,
    altchaSiteKey: service.account.altcha_site_key,
    simulators: `${service.url}/sim`,
    api: '127.0.0.1',
    apiUrl: `${api.url}/shapes`,
  }
  return {
    site,
    service,
    api,
    stop: () => Promise.all([site.stop(), service.stop(), api.stop()]),
  }
}
