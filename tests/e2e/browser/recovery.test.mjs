// Trouble between page and service: what a session survives, what ends it, and what is tried again.
import assert from 'node:assert/strict'
import { after, afterEach, before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { logComplete, nonceGiven, setFault, startWorld } from '../harness/world.mjs'

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/

for (const engine of chosenEngines()) {
  describe(`trouble in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())
    afterEach(() => setFault(world.service, 'none'))

    /** A page with a session and a first token. */
    const session = async () => {
      await world.freshPage()
      await world.run(async (settings) => {
        const { firstToken } = await import('/flow.js')
        await firstToken(settings, 'recaptcha')
      }, world.settings)
    }
    /** The next token needs a request that carries no fresh result: it is for another API. */
    const refresh = (options = { timeout: HANG }) =>
      world.run(
        async (options) => (await import('/approov.js')).Approov.fetchToken('api.example.com', options),
        options,
      )

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
          refresh(),
          (/** @type {any} */ error) => error.original.name === 'ApproovFetchError' && error.original.retryable,
        )
        service = await start()
        assert.match(await refresh(), TOKEN)
      } finally {
        await service.stop()
      }
    })

    test('a service restarted with another secret ends the session, and the lazy pattern recovers', async () => {
      const port = await freePort()
      const start = (byte) =>
        startService({
          args: ['--listen', `127.0.0.1:${port}`, '--session-secret', Buffer.alloc(64, byte).toString('base64')],
        })
      let service = await start(1)
      try {
        const settingsOf = ({ account, url }) => ({
          ...world.settings,
          approovHost: url,
          approovSiteKey: account.site_key,
          simulators: `${url}/sim`,
          keys: { recaptcha: { recaptchaSiteKey: account.recaptcha_site_key } },
        })
        await world.freshPage()
        await world.run(async (settings) => {
          Object.assign(globalThis, await import('/approov.js'), await import('/flow.js'))
          await firstToken(settings, 'recaptcha')
        }, settingsOf(service))
        await service.stop()
        service = await start(2)
        const recovered = await world.run(async (settings) => {
          const api = 'api.example.com'
          const error = await rejection(Approov.fetchToken(api, { timeout: PATIENCE }))
          if (!(error instanceof ApproovSessionError)) throw error
          await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
          return {
            code: error.code,
            errors: error.errors,
            token: await Approov.fetchToken(api, await passCheck(settings, 'recaptcha')),
          }
        }, settingsOf(service))
        assert.equal(recovered.code, 'session-expired')
        assert.deepEqual(Object.keys(recovered.errors), ['aprv-invalid-refresh-token'])
        assert.match(recovered.token, TOKEN)
        await logComplete(service)
        // The old session's nonce and refresh token once each, then the new session: no storm.
        assert.deepEqual(
          service.log.filter(({ path, method }) => path === '/attest' && method === 'POST').map(({ status }) => status),
          [401, 401, 200],
        )
      } finally {
        await service.stop()
      }
    })

    test('a dropped refresh is tried again', async () => {
      await session()
      await setFault(world.service, 'drop')
      assert.match(await refresh(), TOKEN)
    })

    test('a lost response costs no challenge: the result is sent once more', async () => {
      const begin = await logComplete(world.service)
      await world.freshPage()
      await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { sessionOptions, passCheck } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        globalThis.result = await passCheck(settings, 'recaptcha')
      }, world.settings)
      await nonceGiven(world.service, begin)
      await setFault(world.service, 'lose')
      const token = await world.run(
        async (settings) => (await import('/approov.js')).Approov.fetchToken(settings.api, globalThis.result),
        world.settings,
      )
      assert.match(token, TOKEN)
      await logComplete(world.service)
      const posts = world.service.log.slice(begin).filter(({ path, method }) => path === '/attest' && method === 'POST')
      // Chromium by itself repeats a request whose connection closed, with the same proof, which is refused.
      assert.ok(posts.length <= 3, `${posts.length} requests`)
      // However often the result came, the check service was asked about it once.
      const lookUps = world.service.log.slice(begin).filter(({ path }) => path === '/sim/recaptcha/siteverify')
      assert.equal(lookUps.length, 1)
    })

    test('a response later than the time-out is an ApproovFetchError, and the session goes on', async () => {
      await session()
      // Far longer than the time-out, on however slow a machine.
      await setFault(world.service, 'delay:3600000')
      await assert.rejects(
        refresh({ timeout: 400 }),
        (/** @type {any} */ error) => error.original.name === 'ApproovFetchError',
      )
      await setFault(world.service, 'none')
      assert.match(await refresh(), TOKEN)
    })

    test("a gateway's HTML page is an error with its status, and the session goes on", async () => {
      await session()
      await setFault(world.service, '5xx:503', 10)
      await assert.rejects(refresh(), (/** @type {any} */ error) => {
        assert.match(error.original.name, /^Approov(Fetch|Service)Error$/)
        assert.match(`${error.original.message} ${JSON.stringify(error.original.errors)}`, /503|Service Unavailable/i)
        return true
      })
      await setFault(world.service, 'none')
      assert.match(await refresh(), TOKEN)
    })
  })
}
