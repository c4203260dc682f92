// The tarball in a fresh project of each bundler: installed, built, loaded in a browser, used for a token.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { serveSite } from '../../../www-demo/stack.mjs'
import { freePort } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'
import { installFixture } from './fixtures.mjs'

/** The response of hCaptcha's public test pair, which always passes. */
const PASSED = '10000000-aaaa-bbbb-cccc-000000000001'

const ENTRIES = ['approov-web-sdk', 'approov-web-sdk/lite', 'approov-web-sdk/approov.js']
const CHECKS = 'approov-web-sdk/checks'

/** Each bundler: the directory it builds into, the page (of its own, or one that loads the script), the package's entries it uses. */
const BUNDLERS = [
  { name: 'vite', output: 'dist', entries: ENTRIES },
  { name: 'webpack', output: 'dist', script: 'main.js', entries: ENTRIES },
  { name: 'rollup', output: 'dist', script: 'main.js', entries: ENTRIES },
  { name: 'esbuild', output: 'dist', script: 'main.js', entries: ENTRIES },
  { name: 'next', output: 'out', entries: ENTRIES.slice(0, 2) },
]

describe('in a project of', () => {
  let world
  before(async () => {
    world = await startWorld('chromium')
  })
  after(() => world?.stop())

  /** A token by way of one entry of the package, in a fresh page. */
  async function tokenOf(page, entry) {
    await world.webdriver.get(page)
    await world.webdriver.wait(() => world.webdriver.executeScript('return Boolean(globalThis.entries)'), HANG)
    const { approovHost, approovSiteKey, keys, api, simulators } = world.settings
    const url = `${simulators}/fingerprint/v4/${keys.fingerprint.fingerprintPublicAPIKey}`
    const settings = {
      api,
      session: { approovHost, approovSiteKey, ...keys[entry === CHECKS ? 'fingerprint' : 'hcaptcha'] },
      check: { url, timeout: HANG },
      result: { hcaptchaToken: PASSED, timeout: HANG },
    }
    return world.run((entry, settings) => globalThis.entries[entry](settings), entry, settings)
  }

  for (const { name, output, script, entries } of BUNDLERS) {
    test(`${name}, every entry gets a token`, { timeout: 10 * HANG }, async (context) => {
      const fixture = await installFixture(name)
      context.after(fixture.remove)
      await fixture.build()
      const built = join(fixture.path, output)
      const page = `<!doctype html><link rel="icon" href="data:,"><script type="module" src="/${script}"></script>`
      const without = async () => {
        const whole = script ? page : await readFile(join(built, 'index.html'), 'utf8')
        return whole.replace('<script', '<script>delete globalThis.WebAssembly</script><script')
      }
      const routes = { '/without-wasm.html': without, ...(script && { '/': () => page }) }
      const site = await serveSite({ mounts: { '/': built }, routes })
      context.after(site.stop)

      for (const entry of entries) {
        const begin = site.requests.length
        assert.match(await tokenOf(`${site.url}/`, entry), /^[\w-]+\.[\w-]+\.[\w-]+$/, entry)
        const modules = site.requests.slice(begin).filter((request) => /\.wasm(\?|$)/.test(request))
        assert.equal(modules.length, entry.endsWith('approov.js') ? 0 : 1, `${entry}: ${modules}`)
      }
      // esbuild's page asks for keys in the memory of the WebAssembly by one of its entries.
      for (const entry of entries.filter((entry) => name !== 'esbuild' || !entry.endsWith('/lite'))) {
        const begin = site.requests.length
        assert.match(await tokenOf(`${site.url}/without-wasm.html`, entry), /^[\w-]+\.[\w-]+\.[\w-]+$/, entry)
        assert.ok(!site.requests.slice(begin).some((request) => request.includes('.wasm')), entry)
      }
      assert.match(await tokenOf(`${site.url}/`, CHECKS), /^[\w-]+\.[\w-]+\.[\w-]+$/)
      const files = await readdir(built, { recursive: true })
      assert.equal(
        files.filter((file) => file.endsWith('.wasm')).length,
        2,
        `${files.filter((file) => file.endsWith('.wasm'))}`,
      )

      if (name === 'vite')
        await context.test("and Vite's development server does too", () => onDevelopmentServer(fixture, entries))
    })
  }

  async function onDevelopmentServer(fixture, entries) {
    const port = await freePort()
    const { NODE_TEST_CONTEXT, ...env } = process.env
    const server = spawn(
      process.execPath,
      ['node_modules/vite/bin/vite.js', '--host', '127.0.0.1', '--port', `${port}`, '--strictPort'],
      {
        cwd: fixture.path,
        env,
        stdio: 'ignore',
      },
    )
    const ended = new Promise((resolve) => server.once('exit', resolve))
    try {
      const page = `http://127.0.0.1:${port}/`
      await world.webdriver.wait(
        () =>
          fetch(page).then(
            ({ ok }) => ok,
            () => false,
          ),
        HANG,
      )
      for (const entry of [...entries, CHECKS])
        assert.match(await tokenOf(page, entry), /^[\w-]+\.[\w-]+\.[\w-]+$/, entry)
    } finally {
      server.kill()
      await ended
    }
  }
})
