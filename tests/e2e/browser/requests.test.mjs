// What one visit asks of the service: no more than it must.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`one visit in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
      if (engine === 'firefox') await warmUpPreflights()
    })
    after(() => world?.stop())

    /**
     * A Firefox that has just started forgets the first two preflight answers of its life, whoever gave them (Firefox 153, after
     * any time, for any address). A visitor's Firefox has those behind it.
     */
    const warmUpPreflights = async () => {
      const other = await startService()
      try {
        await world.freshPage()
        await world.run(async (url) => {
          for (let i = 0; i < 4; i++) await fetch(url, { headers: { dpop: 'none' } })
        }, `${other.url}/attest`)
      } finally {
        await other.stop()
      }
    }

    /** The requests to the attest address since an earlier length of the log, as `METHOD status`. */
    const attestRequests = (since) =>
      world.service.log
        .slice(since)
        .filter((entry) => entry.path === '/attest')
        .map((entry) => `${entry.method} ${entry.status}`)

    /** The log is another process's: what it says about an answered request may arrive a moment later. */
    const settled = () => new Promise((resolve) => setTimeout(resolve, 150))

    test('preflight and nonce while the challenge runs, one POST after it, none for a second fetchToken', async () => {
      await world.freshPage()
      const begin = world.service.log.length
      await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        await new Promise((resolve) => setTimeout(resolve, 500)) // a visitor solves the challenge
      }, world.settings)
      await settled()
      assert.deepEqual(attestRequests(begin), ['OPTIONS 204', 'GET 204'])

      const challenged = world.service.log.length
      const [first, second] = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck } = await import('/flow.js')
        const first = await Approov.fetchToken(settings.api, await passCheck(settings, 'hcaptcha'))
        return [first, await Approov.fetchToken(settings.api, {})]
      }, world.settings)
      await settled()
      assert.deepEqual(attestRequests(challenged), ['POST 200'])
      assert.equal(first, second)
    })

    test('concurrent calls for one token are one request', async () => {
      await world.freshPage()
      const begin = world.service.log.length
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'fingerprint'))
        const result = await passCheck(settings, 'fingerprint')
        return Promise.all(Array.from({ length: 20 }, () => Approov.fetchToken(settings.api, result)))
      }, world.settings)
      await settled()
      assert.equal(new Set(tokens).size, 1)
      assert.equal(attestRequests(begin).filter((request) => request.startsWith('POST')).length, 1)
    })

    test('importing the SDK asks nothing of anybody', async () => {
      await world.freshPage()
      const [service, site] = [world.service.log.length, world.site.requests.length]
      await world.run(() => import('/approov.js').then(() => undefined))
      await settled()
      assert.equal(world.service.log.length, service)
      assert.deepEqual(world.site.requests.slice(site), ['GET /approov.js'])
    })
  })
}
