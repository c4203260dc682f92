// The arguments of every call: what is wrong is refused with all that is wrong, and what is right travels to the service.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'

import { describeWithStub } from '../harness/stub.mjs'

describeWithStub('arguments', ({ stub, run }) => {
  test('no call throws synchronously, whatever it is given; each rejects with an ApproovError', async () => {
    const bad = await run(async () => {
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
        for (const name of ['turnstileToken', 'friendlyCaptchaResponse']) await rejects(...asOption(name))
        if (typeof value !== 'string' || !value)
          await rejects(`event_id ${what}`, () =>
            Approov.fetchToken('api', { fingerprintIDResult: { event_id: value } }),
          )
        await rejects(`sealed_result ${what}`, () =>
          Approov.fetchToken('api', { fingerprintIDResult: { event_id: 'e', sealed_result: value } }),
        )
        await rejects(`turnstileSiteKey ${what}`, () =>
          Approov.initializeSession({ ...options, turnstileSiteKey: value === 'text' ? '' : value }),
        )
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
      // These two begin nothing that could reject: what is wrong with their arguments is thrown.
      const isCalledAtOnce = (name) => /createFetch|^on$/.test(name)
      for (const name of Object.keys(Approov).filter((name) => !isCalledAtOnce(name)))
        await rejects(
          `${name} of nothing`,
          () => Approov[name](),
          /initializeSession|getExpiries|endSession/.test(name),
        )
      return bad
    })
    assert.deepEqual(bad, [])
  })

  test('all that is wrong with a call comes in one message', async () => {
    const message = await run(async () => {
      await Approov.initializeSession(options)
      const wrong = {
        payload: 5,
        fingerprintIDResult: 'x',
        hcaptchaToken: '',
        recaptchaToken: [],
        turnstileToken: {},
        friendlyCaptchaResponse: '.UNSTARTED',
        timeout: 'soon',
        signal: {},
      }
      return (await rejection(Approov.fetchToken('', /** @type {any} */ (wrong)))).message
    })
    for (const name of [
      'api',
      'payload',
      'fingerprintIDResult',
      'hcaptchaToken',
      'recaptchaToken',
      'turnstileToken',
      'friendlyCaptchaResponse',
      'timeout',
      'signal',
    ])
      assert.match(message, new RegExp(`"${name}"`))
  })

  test('every option of fetchToken travels as the service takes it', async () => {
    const sent = async (more) => {
      await run(async (more) => {
        const { bytes, ...given } = more
        await Approov.initializeSession({
          ...options,
          hcaptchaSiteKey: 'hc',
          fingerprintPublicAPIKey: 'fp',
          turnstileSiteKey: 'tu',
          friendlyCaptchaSiteKey: 'fr',
        })
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
    assert.deepEqual(await sent({ fingerprintIDResult: { event_id: 'q', visitor_id: 'v', sealed_result: null } }), {
      ...always,
      ...fingerprint,
    })
    assert.deepEqual(await sent({ fingerprintIDResult: { event_id: 'q', suspect_score: 1 } }), {
      ...always,
      'fingerprintjs-token': 'fp',
      'fingerprintjs-request-id': 'q',
    })
    const sealed = { visitorId: 'v', requestId: 'q', sealedResult: 'noXc7Q+/==' }
    assert.deepEqual(await sent({ fingerprintIDResult: sealed }), {
      ...always,
      ...fingerprint,
      'fingerprintjs-sealed-result': 'noXc7Q+/==',
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
    const others = {
      'turnstile-site-key': 'tu',
      'turnstile-token': '0.t&=+ é',
      'friendly-site-key': 'fr',
      'friendly-response': 'AQ.f',
    }
    const all = {
      fingerprintIDResult: { visitorId: 'v', requestId: 'q' },
      hcaptchaToken: whole,
      recaptchaToken: 'r',
      turnstileToken: '0.t&=+ é',
      friendlyCaptchaResponse: 'AQ.f',
    }
    for (const [option, name] of [
      ['turnstileToken', 'turnstile'],
      ['friendlyCaptchaResponse', 'friendly'],
    ]) {
      const its = Object.fromEntries(Object.entries(others).filter(([parameter]) => parameter.startsWith(name)))
      assert.deepEqual(await sent({ [option]: all[option] }), { ...always, ...its })
    }
    const payload = createHash('sha256').update('Bearer é').digest('base64url')
    for (const bound of [{ payload: 'Bearer é' }, { bytes: [...Buffer.from('Bearer é')] }]) {
      assert.deepEqual(await sent({ ...all, ...bound }), {
        ...always,
        payload,
        ...fingerprint,
        ...hcaptcha,
        ...recaptcha,
        ...others,
      })
    }
  })

  test("a sealed result of Fingerprint's agent travels as the text that its base64() gives", async () => {
    const messages = await run(async () => {
      class BinaryOutput {
        base64() {
          return 'noXc7Q=='
        }
      }
      const messages = []
      const withSealed = (sealed_result) =>
        Approov.fetchToken('api', { fingerprintIDResult: { event_id: 'e', visitor_id: 'v', sealed_result } })
      await Approov.initializeSession({ ...options, fingerprintPublicAPIKey: 'fp' })
      for (const wrong of [{}, { base64: 5 }, { base64: () => '' }, { base64: async () => 'x' }, 5])
        messages.push((await rejection(withSealed(/** @type {any} */ (wrong)))).message)
      const thrown = new Error('no bytes')
      const failing = {
        base64() {
          throw thrown
        },
      }
      const error = await rejection(withSealed(failing))
      messages.push(error.cause === thrown ? error.message : 'without its cause')
      await withSealed(new BinaryOutput())
      return messages
    })
    for (const message of messages) assert.match(message, /"fingerprintIDResult\.sealed_result" must be/)
    assert.deepEqual(Object.fromEntries(new URLSearchParams(stub.forms().at(-1))), {
      api: 'api',
      'approov-site-key': 'site',
      'fingerprintjs-token': 'fp',
      'fingerprintjs-visitor-id': 'v',
      'fingerprintjs-request-id': 'e',
      'fingerprintjs-sealed-result': 'noXc7Q==',
    })
  })

  test('a captcha that is not solved is told so, whichever it is', async () => {
    const errors = await run(async () => {
      const captchas = {
        hcaptchaSiteKey: 'hcaptchaToken',
        recaptchaSiteKey: 'recaptchaToken',
        turnstileSiteKey: 'turnstileToken',
        friendlyCaptchaSiteKey: 'friendlyCaptchaResponse',
      }
      const errors = []
      for (const [key, option] of Object.entries(captchas)) {
        const { approovHost, approovSiteKey } = options
        await Approov.initializeSession(/** @type {any} */ ({ approovHost, approovSiteKey, [key]: 'key' }))
        const { code, message } = await rejection(Approov.fetchToken('api', { [option]: '' }))
        errors.push({ option, code, message })
      }
      return errors
    })
    assert.equal(errors.length, 4)
    for (const { option, code, message } of errors) {
      assert.equal(code, 'invalid-argument')
      assert.match(message, new RegExp(`^"${option}" must be .*, got an empty string: the captcha is not solved$`))
    }
  })

  test('a misspelt option is named where the right one is missing, and ignored elsewhere', async () => {
    const { start, first, later } = await run(async () => {
      const { approovHost, approovSiteKey } = options
      const begin = (/** @type {any} */ keys) => Approov.initializeSession({ approovHost, approovSiteKey, ...keys })
      const fetchToken = (/** @type {any} */ given) => Approov.fetchToken('api', given)
      const message = async (promise) => (await rejection(promise)).message
      const start = [
        await message(begin({ turnstileSitekey: 'key' })),
        await message(begin({ friendlySiteKey: 'key' })),
      ]
      await begin({ turnstileSiteKey: 'key', friendlyCaptchaSiteKey: 'key' })
      const first = [
        await message(fetchToken({ cfTurnstileResponse: 't' })),
        await message(fetchToken({ 'frc-captcha-response': 'f' })),
      ]
      const later = await fetchToken({ turnstileToken: 't', cfTurnstileResponse: 't', friendlyToken: 'f' })
      return { start, first, later }
    })
    assert.match(start[0], /"turnstileSitekey" is not an option: did you mean "turnstileSiteKey"\?/)
    assert.match(start[1], /"friendlySiteKey" is not an option: did you mean "friendlyCaptchaSiteKey"\?/)
    assert.match(
      first[0],
      /result of a check: "turnstileToken" or "friendlyCaptchaResponse"; "cfTurnstileResponse" is not/,
    )
    assert.match(first[1], /"frc-captcha-response" is not an option: did you mean "friendlyCaptchaResponse"\?/)
    assert.ok(later)
  })
})
