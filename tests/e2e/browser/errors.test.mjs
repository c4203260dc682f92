// Bad input and faults end in the specified error, and nothing else.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`faults in ${ENGINES[engine].title}`, () => {
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
      return world.run(
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
    }

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
      const before = world.service.log.length
      isExactly(
        await errorOf(({ Approov, settings }) => Approov.fetchToken(settings.api, { recaptchaToken: 'x' })),
        'ApproovSessionError',
      )
      assert.equal(world.service.log.length, before)
    })

    test('the first fetchToken of a session without a result is an ApproovSessionError', async () => {
      const error = await errorOf(async ({ Approov, settings, sessionOptions }) => {
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        return Approov.fetchToken(settings.api, {})
      })
      isExactly(error, 'ApproovSessionError')
    })

    const good = { approovHost: 'http://127.0.0.1:9', approovSiteKey: 'key', recaptchaSiteKey: 'key' }
    for (const [what, options, named] of [
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
    ]) {
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
        return settled.map(({ value, reason }) => value?.split('.').length ?? Object.keys(reason.errors))
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

    test('a request that no service answers in time is an ApproovFetchError that says so', async () => {
      const error = await errorOf(async ({ Approov, settings, sessionOptions, passCheck }) => {
        await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
        return Approov.fetchToken(settings.api, {
          ...(await passCheck(settings, 'recaptcha', 'slow2000')),
          timeout: 300,
        })
      })
      isExactly(error, 'ApproovFetchError')
      assert.match(`${error.cause?.name}`, /TimeoutError|AbortError/)
    })
  })
}
