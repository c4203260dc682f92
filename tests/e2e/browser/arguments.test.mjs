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

  test('all that is wrong with a call comes in one message', async () => {
    const message = await run(async () => {
      await Approov.initializeSession(options)
      const wrong = {
        payload: 5,
        fingerprintIDResult: 'x',
        hcaptchaToken: '',
        recaptchaToken: [],
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
      'timeout',
      'signal',
    ])
      assert.match(message, new RegExp(`"${name}"`))
  })

  test('every option of fetchToken travels as the service takes it', async () => {
    const sent = async (more) => {
      await run(async (more) => {
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
