// Over HTTP/2, which carries no status text: the message of a service error is the standard phrase and the codes.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

// The service's certificate for development is its own: only Chromium has a flag to accept it.
for (const engine of chosenEngines().filter((name) => name === 'chromium')) {
  describe('HTTP/2 in Chromium', () => {
    test('a service error has the standard phrase and the codes as its message, and a whole visit works', async (context) => {
      const service = await startService({ args: ['--dev-tls'] })
      context.after(service.stop)
      const world = await startWorld(engine, { flags: ['--ignore-certificate-errors'] })
      context.after(world.stop)
      await world.freshPage()
      const { account } = service
      assert.match(account.url, /^https:/)
      const settings = {
        ...world.settings,
        approovHost: new URL(account.url).host,
        approovSiteKey: account.site_key,
        keys: { recaptcha: { recaptchaSiteKey: account.recaptcha_site_key } },
      }
      const { token, error, protocols } = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, PATIENCE, rejection, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        const token = await Approov.fetchToken(settings.api, await passCheck(settings, 'recaptcha'))
        const { name, message, errors } = await rejection(
          Approov.fetchToken('unknown.example.org', { timeout: PATIENCE }),
        )
        const attest = performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/attest'))
        return {
          token,
          error: { name, message, errors: Object.keys(errors) },
          protocols: [...new Set(attest.map((/** @type {any} */ entry) => entry.nextHopProtocol))],
        }
      }, settings)
      assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
      assert.deepEqual(protocols, ['h2'])
      assert.deepEqual(error, {
        name: 'ApproovServiceError',
        message: 'Bad Request: aprv-api-not-found',
        errors: ['aprv-api-not-found'],
      })
    })
  })
}
