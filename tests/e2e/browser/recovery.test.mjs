// Trouble between page and service: what a session survives, and what it asks for again.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`trouble in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    const posts = () => world.service.log.filter((entry) => entry.method === 'POST' && entry.path === '/attest').length
    /** The service's next requests to the attest address meet this fault. */
    const fault = async (mode, count = 1) => {
      const answer = await fetch(`${world.service.url}/sim/fault?${new URLSearchParams({ mode, count })}`, {
        method: 'PUT',
      })
      assert.ok(answer.ok, `setting the fault: ${answer.status}`)
    }
    const calm = () => new Promise((resolve) => setTimeout(resolve, 150))

    /** A page with a session and a first token. */
    const session = async () => {
      await world.freshPage()
      await world.run(async (settings) => {
        const { firstToken } = await import('/flow.js')
        await firstToken(settings, 'recaptcha')
      }, world.settings)
    }
    /** The next token needs a request that carries no fresh result: it is for another API. */
    const refresh = (options = {}) =>
      world.run(
        async (options) => (await import('/approov.js')).Approov.fetchToken('api.example.com', options),
        options,
      )

    test('a thousand concurrent calls are one request', async () => {
      await world.freshPage()
      const begin = posts()
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        const result = await passCheck(settings, 'hcaptcha')
        return [
          ...new Set(await Promise.all(Array.from({ length: 1000 }, () => Approov.fetchToken(settings.api, result)))),
        ]
      }, world.settings)
      await calm()
      assert.equal(tokens.length, 1)
      assert.equal(posts() - begin, 1)
    })

    test('calls for several APIs in one turn are one request', async () => {
      await world.freshPage()
      const begin = posts()
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        const result = await passCheck(settings, 'hcaptcha')
        return Promise.all(['127.0.0.1', 'localhost', 'api.example.com'].map((api) => Approov.fetchToken(api, result)))
      }, world.settings)
      await calm()
      assert.equal(tokens.length, 3)
      assert.equal(posts() - begin, 1)
    })

    test('a session outlives a restart of the service', async () => {
      const port = await freePort()
      const secret = Buffer.alloc(64, 7).toString('base64')
      const start = () => startService({ args: ['--listen', `127.0.0.1:${port}`, '--session-secret', secret] })
      let service = await start()
      try {
        await world.freshPage()
        const settings = { ...world.settings, approovHost: service.url, simulators: `${service.url}/sim` }
        await world.run(async (settings) => {
          const { firstToken } = await import('/flow.js')
          await firstToken(settings, 'recaptcha')
        }, settings)
        await service.stop()
        await assert.rejects(
          refresh({ timeout: 3000 }),
          (error) => error.original.name === 'ApproovFetchError' && error.original.retryable,
        )
        service = await start()
        assert.match(await refresh(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
      } finally {
        await service.stop()
      }
    })

    test('a dropped refresh is tried again', async () => {
      await session()
      await fault('drop')
      assert.match(await refresh(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })

    test('a fresh result is submitted once, even when the answer is lost', async () => {
      await world.freshPage()
      await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { sessionOptions, passCheck } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        globalThis.result = await passCheck(settings, 'recaptcha')
        await new Promise((resolve) => setTimeout(resolve, 300)) // the nonce is there
      }, world.settings)
      const lookups = () => world.service.log.filter((entry) => entry.path.endsWith('/siteverify')).length
      const begin = lookups()
      await fault('lose')
      await assert.rejects(
        world.run(
          async (settings) => (await import('/approov.js')).Approov.fetchToken(settings.api, globalThis.result),
          world.settings,
        ),
        (error) => {
          // Chromium by itself repeats a request whose connection closed: the service knows the proof and refuses it.
          const { name, errors } = error.original
          if (name === 'ApproovServiceError') assert.deepEqual(Object.keys(errors), ['aprv-invalid-dpop-token'])
          else assert.equal(name, 'ApproovFetchError')
          return true
        },
      )
      await calm()
      assert.equal(lookups() - begin, 1)
    })

    test('an answer later than the time-out is an ApproovFetchError, and the session goes on', async () => {
      await session()
      await fault('delay:3000')
      const begin = Date.now()
      await assert.rejects(refresh({ timeout: 400 }), (error) => error.original.name === 'ApproovFetchError')
      assert.ok(Date.now() - begin < 2500, `gave up after ${Date.now() - begin} ms`)
      await fault('none')
      assert.match(await refresh(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })

    test("a gateway's HTML page is an error with its status, and the session goes on", async () => {
      await session()
      await fault('5xx:503', 10)
      await assert.rejects(refresh({ timeout: 5000 }), (error) => {
        assert.match(error.original.name, /^Approov(Fetch|Service)Error$/)
        assert.match(`${error.original.message} ${JSON.stringify(error.original.errors)}`, /503|Service Unavailable/i)
        return true
      })
      await fault('none')
      assert.match(await refresh(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })
  })
}
