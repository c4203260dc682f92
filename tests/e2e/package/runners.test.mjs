// The package in the test runners that apps use, with a page's document simulated by jsdom.
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'

import { serveSite, startProtectedApi, startService } from '../../../www-demo/stack.mjs'
import { installFixture, run } from './fixtures.mjs'

describe('in a test runner with jsdom', () => {
  /** Runs a fixture's tests and returns what the runner reports. */
  async function report(context, name, env = {}) {
    const fixture = await installFixture(name)
    context.after(fixture.remove)
    const { NODE_TEST_CONTEXT, NODE_OPTIONS, ...inherited } = process.env
    const { stdout } = await run('npm', ['test', '--silent'], {
      cwd: fixture.path,
      env: { ...inherited, CI: '1', ...env },
    })
    const { numPassedTests, numTotalTests, success } = JSON.parse(stdout)
    return { numPassedTests, numTotalTests, success }
  }

  test('Vitest gets a token', { timeout: 240_000 }, async (context) => {
    const service = await startService()
    context.after(service.stop)
    const { url, site_key, hcaptcha_site_key } = service.account
    const env = {
      APPROOV_SESSION: JSON.stringify({
        approovHost: url,
        approovSiteKey: site_key,
        hcaptchaSiteKey: hcaptcha_site_key,
      }),
      APPROOV_RESULT: JSON.stringify({ result: { hcaptchaToken: '10000000-aaaa-bbbb-cccc-000000000001' } }),
    }
    assert.deepEqual(await report(context, 'jsdom', env), { numPassedTests: 2, numTotalTests: 2, success: true })
  })

  test('Jest imports it as the README says', { timeout: 240_000 }, async (context) => {
    assert.deepEqual(await report(context, 'jest'), { numPassedTests: 1, numTotalTests: 1, success: true })
  })

  test(
    'with approov-web-sdk/testing in the place of the SDK, in jsdom and happy-dom',
    { timeout: 240_000 },
    async (context) => {
      assert.deepEqual(await report(context, 'testing'), { numPassedTests: 6, numTotalTests: 6, success: true })
    },
  )

  test('Playwright sets how the checks of a page end', { timeout: 240_000 }, async (context) => {
    const service = await startService()
    context.after(service.stop)
    const { account } = service
    const fixture = await installFixture('testing')
    context.after(fixture.remove)
    let api
    const page = () => `<!doctype html><meta charset="utf-8"><title>running</title><link rel="icon" href="data:,">
      <script type="importmap">{ "imports": {
        "approov-web-sdk": "/package/index.js", "approov-web-sdk/checks": "/package/checks.js"
      } }</script>
      <script type="module">
        import { Approov } from 'approov-web-sdk'
        import { hcaptcha } from 'approov-web-sdk/checks'
        const url = '${account.url}/sim/hcaptcha/1/api.js?render=explicit&recaptchacompat=off'
        const apiFetch = Approov.createFetch({
          origins: ['${api.url}'],
          session: { approovHost: '${account.url}', approovSiteKey: '${account.site_key}', hcaptchaSiteKey: '${account.hcaptcha_site_key}' },
          renew: hcaptcha({ url }),
        })
        const response = apiFetch('${api.url}/shapes')
        response.then(({ status }) => (document.title = status), ({ code }) => (document.title = code))
      </script>`
    const site = await serveSite({
      mounts: { '/package': join(fixture.path, 'node_modules/approov-web-sdk') },
      routes: { '/': page },
    })
    context.after(site.stop)
    api = await startProtectedApi({ secret: account.secret, allowOrigin: site.url })
    context.after(api.stop)
    const { stdout: chromium } = await run(
      'sh',
      ['-c', 'command -v chromium || command -v chromium-browser || command -v google-chrome'],
      {},
    )
    const { stdout } = await run(
      process.execPath,
      [
        'src/playwright.js',
        `${site.url}/`,
        chromium.trim(),
        '--no-sandbox',
        '--disable-background-networking',
        '--disable-component-update',
        '--no-first-run',
      ],
      { cwd: fixture.path },
    )
    assert.deepEqual(JSON.parse(stdout), { pass: '200', fail: '401', blocked: 'check-blocked' })
  })
})
