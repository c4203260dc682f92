// Everything a test needs: the service, the protected API, a site with the packed package, a browser.
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { serveSite, startProtectedApi, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from './browser.mjs'

/** Unpacks the npm tarball into a fresh directory and returns the package's place in it. */
export async function unpackTarball() {
  const tarball = process.env.APPROOV_TARBALL
  if (!tarball) throw new Error('APPROOV_TARBALL is not set: start this through cargo xtask')
  const directory = await mkdtemp(join(tmpdir(), 'approov-package-'))
  await promisify(execFile)('tar', ['-xzf', tarball, '-C', directory])
  return { path: join(directory, 'package'), remove: () => rm(directory, { recursive: true, force: true }) }
}

/**
 * Starts the servers, and a site that has the package's `approov.js` at its root, the whole package under `/package/` and
 * the test pages.
 *
 * @param {{serviceArgs?: string[], routes?: Record<string, (request: any) => any>, headers?: object, mounts?: Record<string, string>}} [options] `routes` and
 *   `headers` are the site's; `mounts` gives files of the package, or others by their whole path, a URL
 */
export async function startServers({ serviceArgs = [], routes = {}, headers = {}, mounts = {} } = {}) {
  const cleanups = []
  const stop = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  }
  try {
    const unpacked = await unpackTarball()
    cleanups.push(unpacked.remove)
    const site = await serveSite({
      mounts: {
        '/': fileURLToPath(new URL('../pages', import.meta.url)),
        '/approov.js': join(unpacked.path, 'approov.js'),
        '/checks.js': fileURLToPath(new URL('../../../www-demo/public/checks.js', import.meta.url)),
        '/package': unpacked.path,
        ...Object.fromEntries(Object.entries(mounts).map(([url, file]) => [url, resolve(unpacked.path, file)])),
      },
      routes,
      headers,
    })
    cleanups.push(site.stop)
    const service = await startService({ args: serviceArgs })
    cleanups.push(service.stop)
    const api = await startProtectedApi({ secret: service.account.secret, allowOrigin: site.url })
    cleanups.push(api.stop)
    return { site, service, api, settings: settingsOf(service.account, api.url), packagePath: unpacked.path, stop }
  } catch (error) {
    await stop()
    throw error
  }
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
