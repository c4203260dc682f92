// Each check service, from the check to the protected API on another origin: what passes, what fails, what the token says.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

/** How the entries of each check begin, in tokens and among the expiries. */
const PREFIXES = {
  hcaptcha: 'hcap:',
  recaptcha: 'recap:',
  fingerprint: 'fp:',
  turnstile: 'turnstile:',
  friendly: 'friendly:',
}

for (const engine of chosenEngines()) {
  describe(`checks in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    for (const check of Object.keys(PREFIXES)) {
      /** One visit: token for a check with this outcome, and the API's verdict on it. */
      const visit = async (outcome) => {
        await world.freshPage()
        return world.run(
          async (settings, check, outcome) => {
            const { Approov } = await import('/approov.js')
            const { callApi, firstToken } = await import('/flow.js')
            const token = await firstToken(settings, check, outcome)
            const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
            return { ...(await callApi(settings, { token, proof })), token, expiries: await Approov.getExpiries() }
          },
          world.settings,
          check,
          outcome,
        )
      }

      test(`a passed ${check} check opens the protected API`, async () => {
        const begin = Math.floor(Date.now() / 1000)
        const { status, body, token } = await visit('pass')
        assert.equal(status, 200, JSON.stringify(body))
        assert.equal(body.proof.accepted, true)
        const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
        assert.ok(claims.iat >= begin && claims.iat <= Date.now() / 1000, `iat ${claims.iat}`)
        assert.equal(claims.exp - claims.iat, 120)
        assert.match(claims.cnf.jkt, /^[\w-]{43}$/)
        assert.deepEqual(
          Object.keys(claims.embed).map((key) => key.startsWith(PREFIXES[check])),
          [true],
        )
      })

      test(`a failed ${check} check: in development, the log of the page says why`, async () => {
        await world.freshPage()
        const lines = await world.run(
          async (settings, check) => {
            const { Approov } = await import('/approov.js')
            const { firstToken } = await import('/flow.js')
            const lines = []
            Approov.on('log', ({ message }) => lines.push(message))
            await firstToken(settings, check, 'fail')
            await new Promise((resolve) => setTimeout(resolve))
            return lines
          },
          world.settings,
          check,
        )
        const said = lines.filter((line) => line.startsWith('the service says: '))
        assert.ok(
          said.some((line) => line.startsWith(`the service says: ${check}`)),
          lines.join(),
        )
        assert.equal(said.at(-1), 'the service says: these tokens are of a failed check, and backends refuse them')
      })

      test(`a failed ${check} check gives a token that the API refuses`, async () => {
        const { status, token } = await visit('fail')
        assert.equal(token.split('.').length, 3)
        assert.equal(status, 401)
      })

      test(`the expiries after a ${check} check name the session and the check`, async () => {
        const { expiries } = await visit('pass')
        const now = Date.now()
        const prefix = PREFIXES[check]
        assert.ok(
          Object.keys(expiries).some((key) => key.startsWith(prefix)),
          JSON.stringify(expiries),
        )
        for (const [key, at] of Object.entries(expiries)) assert.ok(at > now && at < now + 86_400_000, `${key}: ${at}`)
        assert.ok(expiries.session)
      })
    }

    test('a token of reCAPTCHA Enterprise opens the protected API, and a failed one does not', async () => {
      for (const [outcome, expected] of Object.entries({ pass: 200, fail: 401, 'low-score': 401 })) {
        await world.freshPage()
        const { status } = await world.run(
          async (settings, outcome) => {
            const { Approov } = await import('/approov.js')
            const { callApi, PATIENCE, sessionOptions } = await import('/flow.js')
            globalThis.approovSim = { outcome }
            const options = sessionOptions(settings, 'recaptchaEnterprise')
            const key = options.recaptchaSiteKey
            await new Promise((resolve, reject) => {
              const src = `${settings.simulators}/recaptcha/enterprise.js?render=${key}`
              const element = Object.assign(document.createElement('script'), { src, onload: resolve })
              element.onerror = reject
              document.head.append(element)
            })
            const { enterprise } = globalThis.grecaptcha
            await new Promise((resolve) => enterprise.ready(resolve))
            await Approov.initializeSession(options)
            const recaptchaToken = await enterprise.execute(key, { action: 'login' })
            const token = await Approov.fetchToken(settings.api, { recaptchaToken, timeout: PATIENCE })
            const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
            return callApi(settings, { token, proof })
          },
          world.settings,
          outcome,
        )
        assert.equal(status, expected, outcome)
      }
    })

    test('results of the agent v3 are looked up, too, and sealed results of v4 are opened', async () => {
      const statuses = await (async () => {
        await world.freshPage()
        return world.run(async (settings) => {
          const { Approov } = await import('/approov.js')
          const { callApi, PATIENCE, sessionOptions } = await import('/flow.js')
          const key = settings.keys.fingerprint.fingerprintPublicAPIKey
          const v3 = await import(/** @type {any} */ (`${settings.simulators}/fingerprint/v3/${key}`))
          const v4 = await import(/** @type {any} */ (`${settings.simulators}/fingerprint/v4/${key}`))
          const statuses = []
          for (const get of [
            async () => (await v3.load()).get(),
            async () => v4.start().get(),
            // Nobody names the visitor in zero-trust mode.
            async () => ({ ...(await v4.start().get()), visitor_id: undefined }),
            async () => ({ ...(await v4.start().get()), sealed_result: null }),
          ]) {
            await Approov.initializeSession(sessionOptions(settings, 'fingerprint'))
            const fingerprintIDResult = await get()
            const token = await Approov.fetchToken(settings.api, { fingerprintIDResult, timeout: PATIENCE })
            const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
            statuses.push((await callApi(settings, { token, proof })).status)
          }
          return statuses
        }, world.settings)
      })()
      assert.deepEqual(statuses, [200, 200, 200, 200])
    })

    test('several checks travel in one request', async () => {
      await world.freshPage()
      const token = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        const checks = ['hcaptcha', 'recaptcha', 'fingerprint', 'turnstile', 'friendly', 'altcha']
        await Approov.initializeSession(Object.assign({}, ...checks.map((check) => sessionOptions(settings, check))))
        const results = await Promise.all(checks.map((check) => passCheck(settings, check)))
        return Approov.fetchToken(settings.api, Object.assign({}, ...results))
      }, world.settings)
      const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
      assert.equal(Object.keys(claims.embed).length, 6)
    })

    test('a payload is bound into the token', async () => {
      await world.freshPage()
      const token = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        return Approov.fetchToken(settings.api, {
          ...(await passCheck(settings, 'hcaptcha')),
          payload: new TextEncoder().encode('Bearer myauth_tokenmy-device-id'),
        })
      }, world.settings)
      // The value is a vector of the vendor's own backend samples.
      assert.equal(
        JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).pay,
        '71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU=',
      )
    })

    test('the script of hCaptcha takes the place of `grecaptcha`, unless the page asks it not to', async () => {
      const names = []
      for (const more of ['', '&recaptchacompat=off']) {
        await world.freshPage()
        names.push(
          await world.run(async (script) => {
            globalThis.grecaptcha = { name: 'reCAPTCHA' }
            await new Promise((resolve, reject) => {
              const element = Object.assign(document.createElement('script'), { src: script, onload: resolve })
              element.onerror = reject
              document.head.append(element)
            })
            return globalThis.grecaptcha === globalThis.hcaptcha ? 'hCaptcha' : globalThis.grecaptcha.name
          }, `${world.settings.simulators}/hcaptcha/1/api.js?render=explicit${more}`),
        )
      }
      assert.deepEqual(names, ['hCaptcha', 'reCAPTCHA'])
    })

    test('a page that has both captchas gets a token with either', async () => {
      await world.freshPage()
      const tokens = await world.run(async (settings) => {
        const { firstToken } = await import('/flow.js')
        const tokens = []
        for (const check of ['recaptcha', 'hcaptcha', 'recaptcha']) tokens.push(await firstToken(settings, check))
        return tokens
      }, world.settings)
      for (const token of tokens) assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })

    test('an element of hCaptcha that comes after the script is rendered when it comes', async () => {
      await world.freshPage()
      const response = await world.run(async (script) => {
        await new Promise((resolve, reject) => {
          const element = Object.assign(document.createElement('script'), { src: script, onload: resolve })
          element.onerror = reject
          document.head.append(element)
        })
        const element = document.createElement('div')
        element.className = 'h-captcha'
        const rendered = new Promise((resolve) =>
          new MutationObserver(resolve).observe(element, { attributes: true, childList: true }),
        )
        document.body.append(element)
        await rendered
        return (await globalThis.hcaptcha.execute({ async: true })).response
      }, `${world.settings.simulators}/hcaptcha/1/api.js`)
      assert.match(response, /^sim-pass-/)
    })
  })
}
