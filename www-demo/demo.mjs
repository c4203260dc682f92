// The demo: site, service and protected API, each on an origin of its own.
import { createHmac } from 'node:crypto'
import { fileURLToPath } from 'node:url'

import { contentSecurityPolicy } from './policy.mjs'
import { serveSite, startProtectedApi, startService } from './stack.mjs'
import { makeTail } from './tail.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/**
 * Starts all three.
 *
 * @param {{port?: number, onRequest?: (entry: object) => void}} [options] port of the site (0: any); the service's request log
 */
export async function startDemo({ port = 0, onRequest = () => {} } = {}) {
  let settings
  const tail = makeTail()
  const site = await serveSite({
    port,
    mounts: { '/': here('public'), '/approov.js': here('../dist/approov.js') },
    routes: {
      '/settings.json': () => settings,
      '/log.json': (request) => tail.after(Number(queryOf(request).get('after'))),
      '/expired-token.json': (request) => ({
        token: expiredToken(queryOf(request).get('jkt'), service.account.secret),
      }),
    },
    headers: (request) => ({
      'Content-Security-Policy': contentSecurityPolicy(settings, queryOf(request)),
      'Referrer-Policy': 'no-referrer',
      'X-Content-Type-Options': 'nosniff',
    }),
  })
  const service = await startService({
    onRequest(entry) {
      tail.add('service', entry)
      onRequest(entry)
    },
  })
  const api = await startProtectedApi({
    secret: service.account.secret,
    allowOrigin: site.url,
    onRequest: (entry) => tail.add('api', entry),
  })
  settings = {
    approovHost: service.url,
    approovSiteKey: service.account.site_key,
    altchaSiteKey: service.account.altcha_site_key,
    hcaptchaSiteKey: service.account.hcaptcha_site_key,
    recaptchaSiteKey: service.account.recaptcha_site_key,
    recaptchaEnterpriseSiteKey: service.account.recaptcha_enterprise_site_key,
    turnstileSiteKey: service.account.turnstile_site_key,
    friendlyCaptchaSiteKey: service.account.friendly_site_key,
    fingerprintPublicAPIKey: service.account.fingerprint_public_api_key,
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

const queryOf = (request) => new URL(request.url, 'http://site').searchParams

/**
 * A token that ended a minute ago, for a key: so that nobody waits two minutes for one of the service's to end. It opens nothing.
 *
 * @param {string} jkt thumbprint of the key @param {string} secret the account's, base64
 */
function expiredToken(jkt, secret) {
  const now = Math.floor(Date.now() / 1000)
  const text = [
    { alg: 'HS256', typ: 'JWT' },
    { iat: now - 180, exp: now - 60, cnf: { jkt } },
  ]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')
  return `${text}.${createHmac('sha256', Buffer.from(secret, 'base64')).update(text).digest('base64url')}`
}
