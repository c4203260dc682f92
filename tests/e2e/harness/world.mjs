// Everything a test needs: the service, the protected API, a site with the packed package, a browser.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { serveSite, startProtectedApi, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from './browser.mjs'
import { until } from './wait.mjs'

/** Unpacks the npm tarball into a fresh directory and returns its path there. */
export async function unpackTarball() {
  const tarball = process.env.APPROOV_TARBALL
  if (!tarball) throw new Error('APPROOV_TARBALL is not set: start this through cargo xtask')
  const directory = await mkdtemp(join(tmpdir(), 'approov-package-'))
  await promisify(execFile)('tar', ['-xzf', tarball, '-C', directory])
  return { path: join(directory, 'package'), remove: () => rm(directory, { recursive: true, force: true }) }
}

/**
 * A site that has the package's `approov.js` at its root, the whole package under `/package/`, and the test pages.
 *
 * @param {{routes?: Record<string, (request: any) => any>, headers?: object, mounts?: Record<string, string>}} [options] `routes`
 *   and `headers` are the site's; `mounts` gives files of the package, or others by their whole path, a URL
 */
export async function startSite({ routes = {}, headers = {}, mounts = {} } = {}) {
  const unpacked = await unpackTarball()
  try {
    const site = await serveSite({
      mounts: {
        '/': fileURLToPath(new URL('../pages', import.meta.url)),
        '/approov.js': join(unpacked.path, 'approov.js'),
        '/package': unpacked.path,
        ...Object.fromEntries(Object.entries(mounts).map(([url, file]) => [url, resolve(unpacked.path, file)])),
      },
      routes,
      headers,
    })
    return {
      ...site,
      packagePath: unpacked.path,
      async stop() {
        await site.stop()
        await unpacked.remove()
      },
    }
  } catch (error) {
    await unpacked.remove()
    throw error
  }
}

/**
 * Starts the site, the service and the protected API.
 *
 * @param {{serviceArgs?: string[]} & Parameters<typeof startSite>[0]} [options] those of the site, and further arguments of the
 *   service
 */
export async function startServers({ serviceArgs = [], ...siteOptions } = {}) {
  const cleanups = []
  const stop = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  }
  try {
    const site = await startSite(siteOptions)
    cleanups.push(site.stop)
    const service = await startService({ args: serviceArgs })
    cleanups.push(service.stop)
    const api = await startProtectedApi({ secret: service.account.secret, allowOrigin: site.url })
    cleanups.push(api.stop)
    return { site, service, api, settings: settingsOf(service.account, api.url), packagePath: site.packagePath, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

let completions = 0

/**
 * Waits until the log of a service, which comes from another process, has a line for every request that it has responded to so far. A
 * line is written before its response goes out, so once the line of one more request is there, all are.
 *
 * @returns {Promise<number>} the length of the log
 */
export async function logComplete(service) {
  const path = `/log-complete-${(completions += 1)}`
  const { status } = await fetch(`${service.url}${path}`)
  assert.equal(status, 404)
  await until(`the service logs ${path}`, () => service.log.some((entry) => entry.path === path))
  return service.log.length
}

/** Waits until the service has given a nonce, since an earlier length of its log. */
export const nonceGiven = (service, since) =>
  until('the service gives a nonce', () => service.log.slice(since).some(({ outcome }) => outcome === 'nonce'))

/** Lets the service's next requests to the attest address meet a fault, as docs/SERVICE.md has them; `none` ends it. */
export async function setFault(service, mode, count = 1) {
  const query = new URLSearchParams({ mode, count: String(count) })
  const { status } = await fetch(`${service.url}/sim/fault?${query}`, { method: 'PUT' })
  assert.equal(status, 204, `setting the fault ${mode}`)
}

/** What a page needs to know: arguments of `initializeSession` for each check, the simulators, the API. */
function settingsOf(account, apiUrl) {
  return {
    approovHost: account.url,
    approovSiteKey: account.site_key,
    keys: {
      hcaptcha: { hcaptchaSiteKey: account.hcaptcha_site_key },
      recaptcha: { recaptchaSiteKey: account.recaptcha_site_key },
      fingerprint: { fingerprintPublicAPIKey: account.fingerprint_public_api_key },
      turnstile: { turnstileSiteKey: account.turnstile_site_key },
      friendly: { friendlyCaptchaSiteKey: account.friendly_site_key },
      altcha: { altchaSiteKey: account.altcha_site_key },
      recaptchaEnterprise: { recaptchaSiteKey: account.recaptcha_enterprise_site_key },
    },
    simulators: `${account.url}/sim`,
    api: '127.0.0.1',
    apiUrl: `${apiUrl}/shapes`,
  }
}

/**
 * Servers and a browser that shows an empty page of the site.
 *
 * @param {keyof typeof import('./engines.mjs').ENGINES} engine
 * @param {Parameters<typeof startServers>[0] & Parameters<typeof openBrowser>[1]} [options]
 */
export async function startWorld(engine, options = {}) {
  const servers = await startServers(options)
  try {
    const browser = await openBrowser(engine, options)
    return {
      ...servers,
      ...browser,
      /** A fresh page: no session, nothing loaded. */
      freshPage: (path = '/blank.html') => browser.webdriver.get(new URL(path, servers.site.url).href),
      stop: async () => {
        await browser.close()
        await servers.stop()
      },
    }
  } catch (error) {
    await servers.stop()
    throw error
  }
}
