// The package under the strictest content security policy that allows WebAssembly: it works, and nothing is reported.
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { serveSite } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG, until } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

/** An image that the policy forbids: its violation shows that all violations before it were reported. */
const FORBIDDEN = 'http://127.0.0.1:9/forbidden.png'

/** The policy that the package's README gives. */
async function documentedPolicy() {
  const readme = await readFile(new URL('../../../pkg-template/README.md', import.meta.url), 'utf8')
  const [, policy] = /^Content-Security-Policy: (.+)$/m.exec(readme)
  for (const part of ["script-src 'self' 'wasm-unsafe-eval';", "require-trusted-types-for 'script'"])
    assert.ok(policy.includes(part), policy)
  return policy
}

for (const engine of chosenEngines()) {
  describe(`a strict content security policy in ${ENGINES[engine].title}`, () => {
    let world
    let site
    let reports
    before(async () => {
      world = await startWorld(engine)
      reports = []
      const policy = [
        (await documentedPolicy()).replaceAll('https://web-1.approovr.io', world.service.url),
        "default-src 'none'",
        "trusted-types 'none'",
        // For the icon that browsers ask for by themselves.
        "img-src 'self'",
        'report-uri /reports',
      ].join('; ')
      site = await serveSite({
        mounts: {
          '/csp.js': fileURLToPath(new URL('../pages/csp.js', import.meta.url)),
          '/package': world.packagePath,
        },
        routes: {
          '/': () =>
            '<!doctype html><html lang="en"><title>waiting</title><script type="module" src="/csp.js"></script></html>',
          '/favicon.ico': () => ({}),
          async '/reports'(request) {
            let body = ''
            for await (const part of request) body += part
            reports.push(JSON.parse(body)['csp-report'])
            return {}
          },
        },
        headers: { 'Content-Security-Policy': policy },
      })
    })
    after(async () => {
      await site?.stop()
      await world?.stop()
    })

    async function visit(entry, more = {}) {
      const { approovHost, approovSiteKey, keys, api } = world.settings
      const task = {
        entry,
        api,
        session: { approovHost, approovSiteKey, ...keys.hcaptcha },
        result: { hcaptchaToken: '10000000-aaaa-bbbb-cccc-000000000001', timeout: HANG },
        forbidden: FORBIDDEN,
        ...more,
      }
      reports.length = 0
      // By way of another document: a changed fragment alone is no new page.
      await world.webdriver.get('about:blank')
      await world.webdriver.get(`${site.url}/#${encodeURIComponent(JSON.stringify(task))}`)
      await world.webdriver.wait(async () => (await world.webdriver.getTitle()).startsWith('{'), HANG)
      await until('the forbidden image is reported', () =>
        reports.some((report) => report['blocked-uri'] === FORBIDDEN),
      )
      return JSON.parse(await world.webdriver.getTitle())
    }
    /** What was reported, except the forbidden image. */
    const reported = () => reports.filter((report) => report['blocked-uri'] !== FORBIDDEN)

    for (const entry of ['/package/approov.js', '/package/index.js', '/package/node.js']) {
      test(`lets ${entry} do a whole flow without a violation`, async () => {
        const outcome = await visit(entry)
        assert.equal(outcome.error, undefined)
        assert.equal(outcome.token.split('.').length, 3)
        assert.equal(outcome.proof.split('.').length, 3)
        assert.equal(outcome.signature, 64)
        assert.equal(outcome.expiries, 2)
        assert.deepEqual(outcome.violations, [])
        assert.deepEqual(reported(), [])
      })
    }

    test('is in force: eval is refused, seen by the listener and reported', async () => {
      const outcome = await visit('/package/approov.js', { provoke: true })
      assert.equal(outcome.evaluated, false)
      assert.ok(outcome.violations.length > 0)
      await until('the use of eval is reported', () => reported().length > 0)
    })
  })
}
