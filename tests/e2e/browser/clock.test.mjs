// A wrong clock on the user's machine changes nothing.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { decodeJwt } from 'jose'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

const HOUR = 3_600_000

for (const engine of chosenEngines()) {
  describe(`a wrong clock in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    for (const [how, offset] of [
      ['six hours fast', 6 * HOUR],
      ['six hours slow', -6 * HOUR],
      ['ten days slow', -240 * HOUR],
    ]) {
      test(`${how}: token, proof and cache work, and expiries fit the local clock`, async () => {
        await world.freshPage()
        const posts = () =>
          world.service.log.filter((entry) => entry.method === 'POST' && entry.path === '/attest').length
        const begin = posts()
        const result = await world.run(
          async (settings, offset) => {
            const { now } = Date
            Date.now = () => now.call(Date) + offset
            const { Approov } = await import('/approov.js')
            const { callApi, firstToken } = await import('/flow.js')
            const token = await firstToken(settings, 'hcaptcha')
            const again = await Approov.fetchToken(settings.api, {})
            const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
            const { status } = await callApi(settings, { token, proof })
            const left = (await Approov.getExpiries()).session - Date.now()
            return { same: token === again, proof, status, left }
          },
          world.settings,
          offset,
        )
        assert.equal(result.status, 200)
        assert.equal(result.same, true)
        assert.equal(posts() - begin, 1)
        assert.ok(Math.abs(decodeJwt(result.proof).iat - Date.now() / 1000) < 5, 'iat is the time of the service')
        assert.ok(result.left > 0 && result.left <= 24 * HOUR, `${result.left} ms left`)
      })
    }
  })
}
