// How many requests a visit causes: no more than it must.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { logComplete, nonceGiven, startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`requests in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
      if (engine === 'firefox') await warmUpPreflights()
    })
    after(() => world?.stop())

    /**
     * A Firefox that has just started forgets the first two preflight responses of its life, whoever gave them (Firefox 153, after
     * any time, for any address). A visitor's Firefox has had those.
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
    const attestRequests = async (since) => {
      await logComplete(world.service)
      return world.service.log
        .slice(since)
        .filter((entry) => entry.path === '/attest')
        .map((entry) => `${entry.method} ${entry.status}`)
    }
    const posts = async (since) => (await attestRequests(since)).filter((request) => request.startsWith('POST'))

    test('preflight and nonce while the challenge runs, one POST after it, none for a second fetchToken', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
      }, world.settings)
      // While a visitor solves the challenge.
      await nonceGiven(world.service, begin)
      assert.deepEqual(await attestRequests(begin), ['OPTIONS 204', 'GET 204'])

      const challenged = await logComplete(world.service)
      const [first, second] = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck } = await import('/flow.js')
        const first = await Approov.fetchToken(settings.api, await passCheck(settings, 'hcaptcha'))
        return [first, await Approov.fetchToken(settings.api, {})]
      }, world.settings)
      assert.deepEqual(await attestRequests(challenged), ['POST 200'])
      assert.equal(first, second)
    })

    test('concurrent calls for one token are one request', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'fingerprint'))
        const result = await passCheck(settings, 'fingerprint')
        return Promise.all(Array.from({ length: 20 }, () => Approov.fetchToken(settings.api, result)))
      }, world.settings)
      assert.equal(new Set(tokens).size, 1)
      assert.equal((await posts(begin)).length, 1)
    })

    test('a thousand concurrent calls are one request', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        const result = await passCheck(settings, 'hcaptcha')
        return [
          ...new Set(await Promise.all(Array.from({ length: 1000 }, () => Approov.fetchToken(settings.api, result)))),
        ]
      }, world.settings)
      assert.equal(tokens.length, 1)
      assert.equal((await posts(begin)).length, 1)
    })

    test('calls for several APIs in one turn are one request', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        const result = await passCheck(settings, 'hcaptcha')
        return Promise.all(['127.0.0.1', 'localhost', 'api.example.com'].map((api) => Approov.fetchToken(api, result)))
      }, world.settings)
      assert.equal(tokens.length, 3)
      assert.equal((await posts(begin)).length, 1)
    })

    test('the case in which a domain is written makes no difference, even for calls of one turn', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const tokens = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { firstToken, PATIENCE } = await import('/flow.js')
        await firstToken(settings, 'recaptcha')
        return Promise.all(
          ['API.Example.com', 'api.example.com', 'Api.example.COM'].map((api) =>
            Approov.fetchToken(api, { timeout: PATIENCE }),
          ),
        )
      }, world.settings)
      for (const token of tokens) assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
      assert.equal((await posts(begin)).length, 2)
    })

    test('importing the SDK sends nothing and starts no timer', async () => {
      await world.freshPage()
      const [service, site] = [await logComplete(world.service), world.site.requests.length]
      const timers = await world.run(async () => {
        const { setTimeout, setInterval } = globalThis
        const timers = []
        for (const [name, set] of Object.entries({ setTimeout, setInterval })) {
          globalThis[name] = (...args) => (timers.push(name), set.apply(globalThis, args))
        }
        await import('/approov.js')
        Object.assign(globalThis, { setTimeout, setInterval })
        // What the import had sent by itself would have gone out before this.
        await fetch('/blank.html')
        return timers
      })
      assert.deepEqual(timers, [])
      assert.deepEqual(await attestRequests(service), [])
      assert.deepEqual(world.site.requests.slice(site), ['GET /approov.js', 'GET /blank.html'])
    })
  })
}
