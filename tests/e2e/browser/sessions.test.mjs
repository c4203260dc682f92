// Sessions over time and under concurrency: several callers, restarts, sleep, and initializeSession in the middle of anything.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { answer, grant, useStub } from '../harness/stub.mjs'

const HOUR = 3_600_000
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/

for (const engine of chosenEngines()) {
  describe(`sessions in ${ENGINES[engine].title}`, () => {
    const suite = useStub(engine, async (options) => {
      Object.assign(globalThis, await import('/approov.js'), await import('/flow.js'), { options })
      /** The code of what a promise rejects with, or what it resolves to. */
      globalThis.outcome = (promise) =>
        promise.then(
          (value) => value,
          (error) => `${error.name} ${error.code}`,
        )
    })
    let world
    let stub
    before(() => {
      ;({ world, stub } = suite)
    })

    test('the classes of errors are a hierarchy, with every property that is promised', async () => {
      stub.reply((response) => answer(response, 400, { 'aprv-no-site-key': '' }))
      const errors = await world.run(
        async (unreachable) => {
          const thrown = {
            session: await rejection(Approov.getExpiries()),
            argument: await rejection(Approov.initializeSession({ approovHost: 5 })),
          }
          await Approov.initializeSession(options)
          thrown.service = await rejection(Approov.fetchToken('api', { recaptchaToken: 'r' }))
          thrown.aborted = await rejection(
            Approov.fetchToken('api', { recaptchaToken: 'r', signal: AbortSignal.abort() }),
          )
          await Approov.initializeSession({ ...options, approovHost: unreachable })
          thrown.network = await rejection(Approov.fetchToken('api', { recaptchaToken: 'r' }))
          const classes = { ApproovError, ApproovFetchError, ApproovServiceError, ApproovSessionError, Error }
          return Object.fromEntries(
            Object.entries(thrown).map(([what, error]) => [
              what,
              {
                is: Object.keys(classes).filter((name) => error instanceof classes[name]),
                own: Object.keys(error).sort(),
                name: error.name,
                className: error.constructor.name,
                text: `${error}`.startsWith(`${error.name}: ${error.message}`),
                message: error.message.length > 0,
                stack: typeof error.stack,
                code: error.code,
                retryable: error.retryable,
                cause: 'cause' in error,
                causeIsErrors: error.cause === error.errors,
                causeIsEnumerable: Object.prototype.propertyIsEnumerable.call(error, 'cause'),
              },
            ]),
          )
        },
        `http://127.0.0.1:${await freePort()}`,
      )
      const every = { text: true, message: true, stack: 'string', causeIsEnumerable: false }
      const kind = (name) => ({
        is: [...new Set(['ApproovError', name])].sort().concat('Error'),
        name,
        className: name,
      })
      assert.deepEqual(errors, {
        session: {
          ...every,
          ...kind('ApproovSessionError'),
          own: ['code', 'retryable'],
          code: 'not-initialized',
          retryable: false,
          cause: false,
          causeIsErrors: true,
        },
        argument: {
          ...every,
          ...kind('ApproovError'),
          own: ['code', 'retryable'],
          code: 'invalid-argument',
          retryable: false,
          cause: false,
          causeIsErrors: true,
        },
        service: {
          ...every,
          ...kind('ApproovServiceError'),
          own: ['code', 'errors', 'retryable'],
          code: 'service',
          retryable: false,
          cause: false,
          causeIsErrors: false,
        },
        aborted: {
          ...every,
          ...kind('ApproovFetchError'),
          own: ['code', 'errors', 'retryable'],
          code: 'aborted',
          retryable: false,
          cause: true,
          causeIsErrors: true,
        },
        network: {
          ...every,
          ...kind('ApproovFetchError'),
          own: ['code', 'errors', 'retryable'],
          code: 'network',
          retryable: true,
          cause: true,
          causeIsErrors: true,
        },
      })
    })

    test('no call throws synchronously, whatever it is given; each rejects with an ApproovError', async () => {
      const bad = await world.run(async () => {
        await Approov.initializeSession(options)
        const hostile = new Proxy(
          {},
          {
            get() {
              throw new Error('get')
            },
            ownKeys() {
              throw new Error('ownKeys')
            },
            has() {
              throw new Error('has')
            },
          },
        )
        const { proxy, revoke } = Proxy.revocable({}, {})
        revoke()
        const revokedFunction = Proxy.revocable(() => {}, {})
        revokedFunction.revoke()
        const values = [
          5,
          -0,
          NaN,
          true,
          'text',
          '',
          7n,
          Symbol('s'),
          () => {},
          [],
          [[]],
          new Map(),
          new Date(NaN),
          /x/,
          Object.create(null),
          new Uint8Array(),
          new DataView(new ArrayBuffer(2)),
          hostile,
          proxy,
          revokedFunction.proxy,
          Promise.resolve(1),
          new Proxy([], {}),
          class {},
          globalThis,
          document,
        ]
        const bad = []
        const rejects = async (what, call, mayResolve = false) => {
          let promise
          try {
            promise = call()
          } catch (error) {
            bad.push(`${what} threw ${error}`)
            return
          }
          if (!(promise instanceof Promise)) bad.push(`${what} is no promise`)
          await promise.then(
            () => mayResolve || bad.push(`${what} resolved`),
            (error) =>
              (error instanceof ApproovError && error.code === 'invalid-argument') ||
              bad.push(`${what}: ${error} ${error?.code}`),
          )
        }
        for (const [index, value] of values.entries()) {
          const what = `value ${index} (${Object.prototype.toString.call(typeof value === 'object' || typeof value === 'function' ? null : value)})`
          const asOption = (name, more = {}) => [
            `fetchToken ${name} ${what}`,
            () => Approov.fetchToken('api', { ...more, [name]: value, timeout: 500 }),
          ]
          if (typeof value !== 'string' || !value)
            await rejects(`api ${what}`, () => Approov.fetchToken(value, { recaptchaToken: 'r', timeout: 500 }))
          await rejects(...asOption('fingerprintIDResult'))
          await rejects(...asOption('hcaptchaToken'))
          await rejects(`recaptchaToken ${what}`, () =>
            Approov.fetchToken('api', { recaptchaToken: value === 'text' ? '' : value }),
          )
          await rejects(`signal ${what}`, () => Approov.fetchToken('api', { recaptchaToken: 'r', signal: value }))
          if (typeof value !== 'number' || !(value >= 1))
            await rejects(`timeout ${what}`, () => Approov.fetchToken('api', { recaptchaToken: 'r', timeout: value }))
          await rejects(`initializeSession ${what}`, () =>
            Approov.initializeSession({ ...options, approovSiteKey: value === 'text' ? '' : value }),
          )
          await rejects(`keyStorage ${what}`, () => Approov.initializeSession({ ...options, keyStorage: value }))
          await rejects(
            `options ${what}`,
            () => Approov.initializeSession(value),
            typeof value === 'object' || typeof value === 'function',
          )
          await rejects(`method ${what}`, () => Approov.getDPoPToken(value === 'text' ? '' : value, 'https://a/'))
          await rejects(`uri ${what}`, () => Approov.getDPoPToken('GET', value))
          await rejects(`nonce ${what}`, () => Approov.getDPoPToken('GET', 'https://a/', value), true)
          if (value && typeof value !== 'string')
            await rejects(`token ${what}`, () => Approov.getDPoPToken('GET', 'https://a/', 0, value))
          await rejects(`messageSignature ${what}`, () => Approov.messageSignature(value), typeof value === 'object')
        }
        for (const name of Object.keys(Approov))
          await rejects(`${name} of nothing`, () => Approov[name](), /initializeSession|getExpiries/.test(name))
        return bad
      })
      assert.deepEqual(bad, [])
    })

    test('what WebCrypto throws, or rejects with, is the cause of an ApproovError, and the next call signs', async () => {
      const { failures, proof } = await world.run(async () => {
        const { sign } = SubtleCrypto.prototype
        let broken
        SubtleCrypto.prototype.sign = function (...args) {
          return broken ? broken() : sign.apply(this, args)
        }
        const { Approov, ApproovError } = await import('/approov.js?evaluated-after-that')
        await Approov.initializeSession(options)
        const failures = []
        for (broken of [
          () => {
            throw new TypeError('thrown')
          },
          () => Promise.reject(new TypeError('rejected')),
        ]) {
          for (const call of [() => Approov.getDPoPToken('GET', 'https://a/'), () => Approov.messageSignature([1])]) {
            const error = await rejection(call())
            failures.push([error instanceof ApproovError, error.name, error.code, error.retryable, error.cause.message])
          }
        }
        broken = undefined
        return { failures, proof: await Approov.getDPoPToken('GET', 'https://a/') }
      })
      const failure = (cause) => [true, 'ApproovError', 'internal', false, cause]
      assert.deepEqual(failures, ['thrown', 'thrown', 'rejected', 'rejected'].map(failure))
      assert.match(proof, /^[\w-]+\.[\w-]+\.[\w-]{86}$/)
    })

    test('all that is wrong with a call comes in one message', async () => {
      const message = await world.run(async () => {
        await Approov.initializeSession(options)
        const wrong = {
          payload: 5,
          fingerprintIDResult: 'x',
          hcaptchaToken: '',
          recaptchaToken: [],
          timeout: 'soon',
          signal: {},
        }
        return (await rejection(Approov.fetchToken('', wrong))).message
      })
      for (const name of [
        'api',
        'payload',
        'fingerprintIDResult',
        'hcaptchaToken',
        'recaptchaToken',
        'timeout',
        'signal',
      ])
        assert.match(message, new RegExp(`"${name}"`))
    })

    test('two lazy callers at once both end with a token', async () => {
      const { tokens, calls } = await world.run(async () => {
        let calls = 0
        const lazily = async () => {
          try {
            return await Approov.fetchToken('api')
          } catch (error) {
            if (!(error instanceof ApproovSessionError)) throw error
            await Approov.initializeSession(options)
            await new Promise((resolve) => setTimeout(resolve, 20 * (calls % 2)))
            return Approov.fetchToken('api', { recaptchaToken: `result ${(calls += 1)}` })
          }
        }
        return { tokens: await Promise.all([lazily(), lazily(), lazily()]), calls }
      })
      assert.equal(calls, 3)
      for (const token of tokens) assert.match(token, /^token\./)
    })

    test('initializeSession in the middle: the old call settles, and nothing of it reaches the new session', async () => {
      const waiting = []
      stub.reply((response, form) => waiting.push(() => answer(response, 200, grant(form))))
      await world.run(async () => {
        await Approov.initializeSession(options)
        globalThis.old = outcome(Approov.fetchToken('api', { recaptchaToken: 'old' }))
        globalThis.oldProof = await Approov.getDPoPToken('GET', 'https://a/')
      })
      for (let i = 0; waiting.length === 0 && i < 100; i++) await new Promise((resolve) => setTimeout(resolve, 20))
      const between = await world.run(async () => {
        const again = Approov.initializeSession()
        // Not awaited: what follows is of the new session all the same.
        const proof = Approov.getDPoPToken('GET', 'https://a/')
        const expiries = Approov.getExpiries()
        const token = outcome(Approov.fetchToken('api'))
        await again
        const key = (proof) => JSON.parse(atob(proof.split('.')[0].replaceAll('-', '+').replaceAll('_', '/'))).jwk.x
        return { isNewKey: key(await proof) !== key(oldProof), expiries: await expiries, token: await token }
      })
      assert.deepEqual(between, { isNewKey: true, expiries: {}, token: 'ApproovSessionError results-required' })
      waiting[0]()
      assert.match(await world.run(() => old), /^token\./)
      assert.deepEqual(
        await world.run(async () => [await Approov.getExpiries(), await outcome(Approov.fetchToken('api'))]),
        [{}, 'ApproovSessionError results-required'],
      )
    })

    test('getExpiries tells of every stage: no session, no token yet, a session, its end, a new one', async () => {
      stub.reply((response, form) => answer(response, 200, grant(form, { session: 400 })))
      const stages = await world.run(async () => {
        const stages = [await outcome(Approov.getExpiries())]
        await Approov.initializeSession(options)
        stages.push(await Approov.getExpiries())
        const token = outcome(Approov.fetchToken('api', { recaptchaToken: 'r' }))
        stages.push(await Approov.getExpiries())
        await token
        const running = await Approov.getExpiries()
        stages.push(Object.keys(running).sort(), running.session > Date.now())
        await new Promise((resolve) => setTimeout(resolve, 600))
        stages.push(
          (await Approov.getExpiries()).session <= Date.now(),
          await outcome(Approov.fetchToken('api')),
          (await Approov.getExpiries()).session <= Date.now(),
        )
        await Approov.initializeSession({})
        stages.push(await Approov.getExpiries())
        return stages
      })
      assert.deepEqual(stages, [
        'ApproovSessionError not-initialized',
        {},
        {},
        ['recap:re', 'session'],
        true,
        true,
        'ApproovSessionError session-expired',
        true,
        {},
      ])
      assert.equal(stub.forms().length, 1, 'the end of a session costs no request')
    })

    test('one caller who aborts does not abort the others', async () => {
      stub.reply((response, form) => setTimeout(() => answer(response, 200, grant(form)), 300))
      const outcomes = await world.run(async () => {
        await Approov.initializeSession(options)
        const controller = new AbortController()
        const reason = new Error('enough')
        const calls = [{ signal: controller.signal }, {}, { timeout: 50 }].map((more) =>
          outcome(Approov.fetchToken('api', { recaptchaToken: 'r', ...more })),
        )
        setTimeout(() => controller.abort(reason), 20)
        return Promise.all(calls)
      })
      assert.deepEqual([outcomes[0], outcomes[2]], ['ApproovFetchError aborted', 'ApproovFetchError timeout'])
      assert.match(outcomes[1], /^token\./)
      assert.equal(stub.forms().length, 1)
    })

    test('a changed payload or result drops all cached tokens, the same one drops none', async () => {
      const posts = []
      const step = async (api, more) => {
        await world.run((api, more) => Approov.fetchToken(api, more), api, more)
        posts.push(stub.forms().length)
      }
      await world.run(() => Approov.initializeSession(options))
      await step('a', { recaptchaToken: 'r1' })
      await step('b', {})
      await step('a', { recaptchaToken: 'r1' })
      await step('b', { recaptchaToken: 'r1' })
      assert.deepEqual(posts.splice(0), [1, 2, 2, 2])
      await step('a', { payload: 'x' })
      await step('b', { payload: 'x' })
      await step('a', { payload: 'x' })
      await step('a', {})
      assert.deepEqual(posts.splice(0), [3, 4, 4, 5])
      await step('a', { recaptchaToken: 'r2' })
      await step('b', {})
      await step('b', { recaptchaToken: 'r2' })
      assert.deepEqual(posts.splice(0), [6, 7, 7])
      const sent = stub.forms().map((form) => new URLSearchParams(form).get('recaptcha-token'))
      assert.deepEqual(sent, ['r1', null, null, null, null, 'r2', null])
    })

    test('an ageing token is returned at once and replaced behind the caller; an expired one is awaited', async () => {
      stub.reply((response, form) => answer(response, 200, grant(form, { lifetime: 2 })))
      const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
      const get = () => world.run(() => Approov.fetchToken('api'))
      await world.run(() => Approov.initializeSession(options))
      const first = await world.run(() => Approov.fetchToken('api', { recaptchaToken: 'r' }))
      assert.equal(await get(), first)
      assert.equal(stub.forms().length, 1)
      await wait(1600)
      assert.equal(await get(), first)
      await wait(150)
      const second = await get()
      assert.notEqual(second, first)
      assert.equal(stub.forms().length, 2)
      await wait(2100)
      assert.notEqual(await get(), second)
      assert.equal(stub.forms().length, 3)
    })

    for (const [what, sleeps] of [
      ['both clocks went on', true],
      ['performance.now stood still', false],
    ]) {
      test(`after hours asleep while ${what}, a hundred calls are one request or the end of the session`, async () => {
        await world.run(async () => {
          globalThis.asleep = 0
          globalThis.ticked = 0
          const [wall, monotonic] = [Date.now, performance.now]
          Date.now = () => wall.call(Date) + asleep
          performance.now = () => monotonic.call(performance) + ticked
          await Approov.initializeSession(options)
          await Approov.fetchToken('api', { recaptchaToken: 'r' })
        })
        const wake = (hours, sleeps) =>
          world.run(
            async (asleep, sleeps) => {
              Object.assign(globalThis, { asleep, ticked: sleeps ? asleep : 0 })
              return [
                ...new Set(await Promise.all(Array.from({ length: 100 }, () => outcome(Approov.fetchToken('api'))))),
              ]
            },
            hours * HOUR,
            sleeps,
          )
        stub.reply((response, form) => answer(response, 200, grant(form, { now: Date.now() + HOUR })))
        const tokens = await wake(1, sleeps)
        assert.equal(tokens.length, 1)
        assert.match(tokens[0], /^token\./)
        assert.deepEqual(stub.forms().length, 1)
        stub.reply((response) => answer(response, 401, { 'aprv-invalid-refresh-token': 'expired' }))
        assert.deepEqual(await wake(9, sleeps), ['ApproovSessionError session-expired'])
        assert.deepEqual(await wake(9, sleeps), ['ApproovSessionError session-expired'])
        assert.equal(stub.forms().length, sleeps ? 0 : 1)
      })
    }

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
        await world.run((settings) => firstToken(settings, 'recaptcha'), settingsOf(service))
        await service.stop()
        service = await start(2)
        const recovered = await world.run(async (settings) => {
          const api = 'api.example.com'
          const error = await rejection(Approov.fetchToken(api))
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
        // The old session's nonce and refresh token once each, then the new session: no storm.
        assert.deepEqual(
          service.log.filter(({ path, method }) => path === '/attest' && method === 'POST').map(({ status }) => status),
          [401, 401, 200],
        )
      } finally {
        await service.stop()
      }
    })

    test('the case in which a domain is written makes no difference, even for calls of one turn', async () => {
      const tokens = await world.run(async (settings) => {
        await firstToken(settings, 'recaptcha')
        return Promise.all(
          ['API.Example.com', 'api.example.com', 'Api.example.COM'].map((api) => Approov.fetchToken(api)),
        )
      }, world.settings)
      for (const token of tokens) assert.match(token, TOKEN)
    })

    test('calls right behind the first initializeSession wait for it', async () => {
      const outcomes = await world.run(async () => {
        const calls = [
          Approov.initializeSession(options),
          Approov.fetchToken('api', { recaptchaToken: 'r' }),
          Approov.getDPoPToken('GET', 'https://a/'),
          Approov.messageSignature([1]),
          Approov.getExpiries(),
        ]
        return Promise.all(calls.map(outcome))
      })
      assert.match(outcomes[1], /^token\./)
      assert.equal(outcomes[2].split('.').length, 3)
      assert.deepEqual(outcomes[4], {})
      assert.equal(stub.forms().length, 1)
    })

    test('an initializeSession that fails leaves the session as it was', async () => {
      const same = await world.run(async () => {
        await Approov.initializeSession(options)
        const token = await Approov.fetchToken('api', { recaptchaToken: 'r' })
        const refused = await outcome(Approov.initializeSession({ ...options, approovHost: 'https://wrong/' }))
        return refused === 'ApproovError invalid-argument' && token === (await Approov.fetchToken('api'))
      })
      assert.equal(same, true)
    })

    test('every option of fetchToken travels as the service takes it', async () => {
      const sent = async (more) => {
        await world.run(async (more) => {
          const { bytes, ...given } = more
          await Approov.initializeSession({ ...options, hcaptchaSiteKey: 'hc', fingerprintPublicAPIKey: 'fp' })
          await Approov.fetchToken('api', { ...given, ...(bytes && { payload: new Uint8Array(bytes) }) })
        }, more)
        return Object.fromEntries(new URLSearchParams(stub.forms().at(-1)))
      }
      const always = { api: 'api', 'approov-site-key': 'site' }
      const fingerprint = {
        'fingerprintjs-token': 'fp',
        'fingerprintjs-visitor-id': 'v',
        'fingerprintjs-request-id': 'q',
      }
      assert.deepEqual(await sent({ fingerprintIDResult: { fingerprintVisitorId: 'v', fingerprintRequestId: 'q' } }), {
        ...always,
        ...fingerprint,
      })
      assert.deepEqual(await sent({ fingerprintIDResult: { visitorId: 'v', requestId: 'q', confidence: {} } }), {
        ...always,
        ...fingerprint,
      })
      assert.deepEqual(await sent({ hcaptchaToken: 'h' }), {
        ...always,
        'hcaptcha-site-key': 'hc',
        'hcaptcha-token': 'h',
      })
      const whole = { response: 'h&=+ é', key: 'k', host: 'example.com' }
      const hcaptcha = {
        'hcaptcha-site-key': 'hc',
        'hcaptcha-token': 'h&=+ é',
        'hcaptcha-key': 'k',
        'hcaptcha-host': 'example.com',
      }
      assert.deepEqual(await sent({ hcaptchaToken: whole }), { ...always, ...hcaptcha })
      const recaptcha = { 'recaptcha-site-key': 're', 'recaptcha-token': 'r' }
      const all = { fingerprintIDResult: { visitorId: 'v', requestId: 'q' }, hcaptchaToken: whole, recaptchaToken: 'r' }
      const payload = createHash('sha256').update('Bearer é').digest('base64url')
      for (const bound of [{ payload: 'Bearer é' }, { bytes: [...Buffer.from('Bearer é')] }]) {
        assert.deepEqual(await sent({ ...all, ...bound }), {
          ...always,
          payload,
          ...fingerprint,
          ...hcaptcha,
          ...recaptcha,
        })
      }
    })
  })
}
