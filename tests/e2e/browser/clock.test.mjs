// Time: a wrong clock on the user's machine changes nothing, tokens go stale and expire, sessions end, computers sleep.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { decodeJwt } from 'jose'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { describeWithStub, HOUR, respond } from '../harness/stub.mjs'
import { until } from '../harness/wait.mjs'
import { logComplete, startWorld } from '../harness/world.mjs'

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
        const posts = async () => {
          await logComplete(world.service)
          return world.service.log.filter((entry) => entry.method === 'POST' && entry.path === '/attest').length
        }
        const postsBefore = await posts()
        const begin = Math.floor(Date.now() / 1000)
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
        assert.equal((await posts()) - postsBefore, 1)
        const { iat } = decodeJwt(result.proof)
        assert.ok(iat >= begin && iat <= Date.now() / 1000, `iat ${iat} is the time of the service`)
        assert.ok(result.left > 0 && result.left <= 24 * HOUR, `${result.left} ms left`)
      })
    }
  })
}

describeWithStub('time that passes', ({ stub, run, advance, sleep }) => {
  test('getExpiries reports every stage: no session, no token yet, a session, its end, a new one', async () => {
    const before = await run(async () => {
      const stages = [await outcome(Approov.getExpiries())]
      await Approov.initializeSession(options)
      stages.push(await Approov.getExpiries())
      const token = outcome(Approov.fetchToken('api', { recaptchaToken: 'r' }))
      stages.push(await Approov.getExpiries())
      await token
      return stages
    })
    assert.deepEqual(before, ['ApproovSessionError not-initialized', {}, {}])
    const left = () =>
      run(async () =>
        Object.entries(await Approov.getExpiries())
          .map(([name, expiry]) => [name, expiry - Date.now()])
          .sort(),
      )
    assert.deepEqual(await left(), [
      ['recap:re', 2 * HOUR],
      ['session', 2 * HOUR],
    ])
    await advance(2 * HOUR)
    const ended = [
      ['recap:re', 0],
      ['session', 0],
    ]
    assert.deepEqual(await left(), ended)
    assert.equal(await run(() => outcome(Approov.fetchToken('api'))), 'ApproovSessionError session-expired')
    assert.deepEqual(await left(), ended)
    assert.equal(stub.forms().length, 1, 'the end of a session costs no request')
    const renewed = await run(async () => {
      await Approov.initializeSession({})
      return Approov.getExpiries()
    })
    assert.deepEqual(renewed, {})
  })

  test('a stale token is returned at once and replaced in the background; an expired one is awaited', async () => {
    const get = () => run(() => Approov.fetchToken('api'))
    const first = await run(async () => {
      await Approov.initializeSession(options)
      return Approov.fetchToken('api', { recaptchaToken: 'r' })
    })
    let release = stub.hold()
    await advance(89_999)
    assert.equal(await get(), first)
    assert.equal(stub.forms().length, 0)
    // In the last quarter of its life, 120 s.
    await advance(1)
    assert.equal(await get(), first)
    await stub.received(1)
    assert.equal(await get(), first)
    release()
    await until('the token is replaced', async () => (await get()) !== first)
    const second = await get()
    assert.equal(stub.forms().length, 1)

    release = stub.hold()
    await advance(120_000)
    await run(() => {
      globalThis.isSettled = false
      globalThis.third = Approov.fetchToken('api').finally(() => (globalThis.isSettled = true))
    })
    await stub.received(1)
    assert.equal(await run(() => isSettled), false)
    release()
    assert.notEqual(await run(() => third), second)
    assert.equal(stub.forms().length, 1)
  })

  for (const [what, isTicking] of [
    ['both clocks went on', true],
    ['performance.now stood still', false],
  ]) {
    test(`after hours asleep while ${what}, a hundred calls are one request or the end of the session`, async () => {
      await run(async () => {
        await Approov.initializeSession(options)
        await Approov.fetchToken('api', { recaptchaToken: 'r' })
      })
      const outcomes = () =>
        run(async () => [
          ...new Set(await Promise.all(Array.from({ length: 100 }, () => outcome(Approov.fetchToken('api'))))),
        ])
      stub.reply()
      await sleep(HOUR, { isTicking })
      const tokens = await outcomes()
      assert.equal(tokens.length, 1)
      assert.match(tokens[0], /^token\./)
      assert.equal(stub.forms().length, 1)
      stub.reply((response) => respond(response, 401, { 'aprv-invalid-refresh-token': 'expired' }))
      await sleep(8 * HOUR, { isTicking })
      assert.deepEqual(await outcomes(), ['ApproovSessionError session-expired'])
      assert.deepEqual(await outcomes(), ['ApproovSessionError session-expired'])
      assert.equal(stub.forms().length, isTicking ? 0 : 1)
    })
  }
})
