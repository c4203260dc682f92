// Bad input and failures end in the specified error, and nothing else.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { describeWithStub, respond } from '../harness/stub.mjs'
import { logComplete, nonceGiven, setFault, startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`errors in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    /**
     * On a fresh page: runs `work` with the SDK, expects a rejection, and describes the error: its classes from the most
     * special to `Error`, its message, code, errors and cause.
     */
    const errorOf = async (work, ...args) => {
      await world.freshPage()
      return errorInPage(work, ...args)
    }
    /** The same on the page that is there. */
    const errorInPage = (work, ...args) =>
      world.run(
        async (settings, work, args) => {
          const sdk = await import('/approov.js')
          const flow = await import('/flow.js')
          const error = await flow.rejection(new Function(`return ${work}`)()({ ...sdk, ...flow, settings }, ...args))
          const classes = [
            sdk.ApproovSessionError,
            sdk.ApproovFetchError,
            sdk.ApproovServiceError,
            sdk.ApproovError,
            Error,
          ]
            .filter((type) => error instanceof type)
            .map((type) => type.name)
          const { name, message, code, retryable, errors } = error
          const plain = (value) => (value instanceof Error ? { name: value.name, message: value.message } : value)
          return { classes, name, message, code, retryable, errors: plain(errors), cause: plain(error.cause) }
        },
        world.settings,
        String(work),
        args,
      )

    const isExactly = (error, name) => {
      assert.deepEqual(
        error.classes,
        name === 'ApproovError' ? ['ApproovError', 'Error'] : [name, 'ApproovError', 'Error'],
        JSON.stringify(error),
      )
      assert.equal(error.name, name)
      assert.equal(typeof error.code, 'string')
      assert.ok(error.message.length > 0)
    }

    test('fetchToken before initializeSession is an ApproovSessionError, without a request', async () => {
      const begin = await logComplete(world.service)
      isExactly(
        await errorOf(({ Approov, settings }) => Approov.fetchToken(settings.api, { recaptchaToken: 'x' })),
        'ApproovSessionError',
      )
      await logComplete(world.service)
      assert.ok(world.service.log.slice(begin).every(({ path }) => path !== '/attest'))
    })

    test('the first fetchToken of a session without a result is an ApproovSessionError', async () => {
      const error = await errorOf(async ({ Approov, settings, sessionOptions }) => {
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        return Approov.fetchToken(settings.api, {})
      })
      isExactly(error, 'ApproovSessionError')
    })

    const good = { approovHost: 'http://127.0.0.1:9', approovSiteKey: 'key', recaptchaSiteKey: 'key' }
    for (const [what, options, named] of /** @type {[string, object, string[]][]} */ ([
      ['no approovHost', { ...good, approovHost: undefined }, ['approovHost']],
      ['an approovHost with a path', { ...good, approovHost: 'https://web-1.example.com/path' }, ['approovHost']],
      [
        'plain http to a host that is not this machine',
        { ...good, approovHost: 'http://web-1.example.com' },
        ['approovHost'],
      ],
      ['an approovHost that is a number', { ...good, approovHost: 5 }, ['approovHost']],
      ['no approovSiteKey', { ...good, approovSiteKey: undefined }, ['approovSiteKey']],
      ['an empty approovSiteKey', { ...good, approovSiteKey: '' }, ['approovSiteKey']],
      [
        'no check service',
        { ...good, recaptchaSiteKey: undefined },
        ['recaptchaSiteKey', 'hcaptchaSiteKey', 'fingerprintPublicAPIKey'],
      ],
      [
        'several problems at once',
        { approovHost: '', recaptchaSiteKey: 7 },
        ['approovHost', 'approovSiteKey', 'recaptchaSiteKey'],
      ],
    ])) {
      test(`initializeSession with ${what} is an ApproovError that names it`, async () => {
        const error = await errorOf(
          ({ Approov }, options) => Approov.initializeSession(options),
          JSON.parse(JSON.stringify(options)),
        )
        isExactly(error, 'ApproovError')
        for (const name of named) assert.match(error.message, new RegExp(name))
      })
    }

    test('initializeSession without options and without an earlier configuration is an ApproovError', async () => {
      isExactly(await errorOf(({ Approov }) => Approov.initializeSession({})), 'ApproovError')
    })

    test('an unreachable service is an ApproovFetchError with the cause in errors', async () => {
      const error = await errorOf(
        async ({ Approov, settings, sessionOptions }, approovHost) => {
          await Approov.initializeSession(sessionOptions({ ...settings, approovHost }, 'recaptcha'))
          return Approov.fetchToken(settings.api, { recaptchaToken: 'anything' })
        },
        `http://127.0.0.1:${await freePort()}`,
      )
      isExactly(error, 'ApproovFetchError')
      assert.equal(error.retryable, true)
      assert.equal(error.errors.name, 'TypeError')
      assert.deepEqual(error.cause, error.errors)
    })

    test("the service's error map arrives in an ApproovServiceError", async () => {
      const error = await errorOf(async ({ Approov, settings, sessionOptions, passCheck }) => {
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha', { approovSiteKey: 'nobody' }))
        return Approov.fetchToken(settings.api, await passCheck(settings, 'recaptcha'))
      })
      isExactly(error, 'ApproovServiceError')
      assert.deepEqual(Object.keys(error.errors), ['aprv-no-matching-account'])
    })

    test('an API that the account does not have fails its own call and no other of the same turn', async () => {
      await world.freshPage()
      const outcomes = await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        const result = await passCheck(settings, 'hcaptcha')
        const settled = await Promise.allSettled(
          ['unknown.example.org', settings.api].map((api) => Approov.fetchToken(api, result)),
        )
        return settled.map(
          (/** @type {any} */ { value, reason }) => value?.split('.').length ?? Object.keys(reason.errors),
        )
      }, world.settings)
      assert.deepEqual(outcomes, [['aprv-api-not-found'], 3])
    })

    test('an API that the account does not have is named by the service', async () => {
      const error = await errorOf(async ({ Approov, settings, sessionOptions, passCheck }) => {
        await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
        return Approov.fetchToken('unknown.example.org', await passCheck(settings, 'hcaptcha'))
      })
      isExactly(error, 'ApproovServiceError')
      assert.deepEqual(Object.keys(error.errors), ['aprv-api-not-found'])
    })

    for (const [check, code] of [
      ['hcaptcha', 'hcap-token-check'],
      ['recaptcha', 'recap-token-check'],
      ['fingerprint', 'fp-tok-check'],
    ]) {
      test(`an error of ${check} itself is ${code}, not a failed check`, async () => {
        const error = await errorOf(({ firstToken, settings }, check) => firstToken(settings, check, 'error'), check)
        isExactly(error, 'ApproovServiceError')
        assert.deepEqual(Object.keys(error.errors), [code])
      })
    }

    test('a request without a response in time is an ApproovFetchError that says so', async (context) => {
      context.after(() => setFault(world.service, 'none'))
      const begin = await logComplete(world.service)
      await world.freshPage()
      await world.run(async (settings) => {
        const { Approov } = await import('/approov.js')
        const { passCheck, sessionOptions } = await import('/flow.js')
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        globalThis.result = await passCheck(settings, 'recaptcha')
      }, world.settings)
      await nonceGiven(world.service, begin)
      // Far longer than the time-out, on however slow a machine.
      await setFault(world.service, 'delay:3600000')
      const error = await errorInPage(({ Approov, settings }) =>
        Approov.fetchToken(settings.api, { ...globalThis.result, timeout: 300 }),
      )
      isExactly(error, 'ApproovFetchError')
      assert.equal(error.code, 'timeout')
      assert.match(`${error.cause?.name}`, /TimeoutError|AbortError/)
    })
  })
}

describeWithStub('error objects', ({ stub, run }) => {
  test('the classes of errors are a hierarchy, with every property that is promised', async () => {
    stub.reply((response) => respond(response, 400, { 'aprv-no-site-key': '' }))
    const errors = await run(
      async (unreachable) => {
        const thrown = {
          session: await rejection(Approov.getExpiries()),
          argument: await rejection(Approov.initializeSession(/** @type {any} */ ({ approovHost: 5 }))),
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

  test('what WebCrypto throws, or rejects with, is the cause of an ApproovError, and the next call signs', async () => {
    const { failures, proof } = await run(async () => {
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
})
