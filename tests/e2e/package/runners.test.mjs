// The package in the test runners that apps use, with a page's document simulated by jsdom.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
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
})
