// Whatever response comes from the service, or from something that took its name: the specified error, and a session that goes on.
import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { beforeEach, test } from 'node:test'

import { describeWithStub, respond } from '../harness/stub.mjs'

/** Every error code of the specification's troubleshooting table, and those that the service adds. */
const CODES = [
  'rqst-body-read-fail',
  'rqst-params-in-body-and-path',
  'rqst-body-too-large',
  'rqst-body-parse',
  'rqst-illegal-params',
  'aprv-no-site-key',
  'aprv-no-web-protect-params',
  'aprv-no-matching-account',
  'aprv-no-web-protect-def',
  'aprv-payload-param-invalid-size',
  'aprv-payload-not-b64url',
  'aprv-api-no-targets',
  'aprv-api-empty-target',
  'aprv-api-duplicate-target',
  'aprv-api-too-many-targets',
  'aprv-api-not-found',
  'aprv-api-not-web-enabled',
  'aprv-invalid-nonce',
  'aprv-invalid-dpop-token',
  'aprv-invalid-refresh-token',
  'fp-config-not-found',
  'fp-missing-required-params',
  'fp-param-mismatch',
  'fp-empty-browser-tok',
  'fp-empty-vis-id',
  'fp-empty-rqst-id',
  'fp-browser-tok-not-found',
  'fp-tok-check',
  'hcap-config-not-found',
  'hcap-missing-required-params',
  'hcap-param-mismatch',
  'hcap-empty-site-key',
  'hcap-empty-token',
  'hcap-site-key-not-found',
  'hcap-token-check',
  'recap-config-not-found',
  'recap-missing-required-params',
  'recap-param-mismatch',
  'recap-empty-site-key',
  'recap-empty-token',
  'recap-site-key-not-found',
  'recap-token-check',
  'turnstile-config-not-found',
  'turnstile-missing-required-params',
  'turnstile-param-mismatch',
  'turnstile-empty-site-key',
  'turnstile-empty-token',
  'turnstile-site-key-not-found',
  'turnstile-token-check',
  'friendly-config-not-found',
  'friendly-missing-required-params',
  'friendly-param-mismatch',
  'friendly-empty-site-key',
  'friendly-empty-response',
  'friendly-site-key-not-found',
  'friendly-response-check',
  'altcha-config-not-found',
  'altcha-missing-required-params',
  'altcha-param-mismatch',
  'altcha-empty-site-key',
  'altcha-empty-payload',
  'altcha-site-key-not-found',
  'aprv-work-required',
  'aprv-origin-not-allowed',
  'aprv-rate-limit',
  'aprv-unavailable',
]

test('the codes of these tests are all that the service has', async () => {
  const directory = new URL('../../../service/src/', import.meta.url)
  const sources = (await readdir(directory, { recursive: true })).filter((name) => name.endsWith('.rs'))
  const texts = await Promise.all(sources.map((name) => readFile(new URL(name, directory), 'utf8')))
  // Where codes are declared; elsewhere the same prefixes begin parameters.
  const declared = texts.join('').match(/(?<= = ")[a-z]+-[a-z0-9-]+(?=", [45]\d\d;)/g)
  const codes = new Set(declared)
  assert.deepEqual([...codes].sort(), [...CODES].sort())
})

describeWithStub('responses of a service', ({ stub, run, advance }) => {
  /** Each test has a session without a token. */
  beforeEach(() =>
    run(async () => {
      await Approov.initializeSession(options)
      /** What a call resolves to or rejects with, as data. */
      globalThis.described = async (call) => {
        try {
          return { token: await call }
        } catch (error) {
          const plain = (value) => (value instanceof Error ? `${value.name}: ${value.message}` : value)
          const { name, message, code, retryable, errors, cause } = error
          return { name, message, code, retryable, errors: plain(errors), cause: plain(cause) }
        }
      }
    }),
  )

  const fetchToken = (options, api = 'api.example.com') =>
    run((api, options) => Approov.fetchToken(api, options), api, options)
  const errorOf = (options, api = 'api.example.com') =>
    run((api, options) => described(Approov.fetchToken(api, options)), api, options)
  /** Begins a call that cannot end before the clock is moved. */
  const begin = (options, api = 'api.example.com') =>
    run(
      (api, options) => {
        globalThis.isSettled = false
        globalThis.call = described(Approov.fetchToken(api, options)).finally(() => (globalThis.isSettled = true))
      },
      api,
      options,
    )
  const isSettled = () => run(() => globalThis.isSettled)
  const ended = () => run(() => globalThis.call)
  /** The same as `errorOf` for a call that may pause and try again. */
  const errorAfterPause = async (options) => {
    await begin(options)
    const pause = await run(() => Promise.race([globalThis.call.then(() => 0), clock.timer(125, 375)]))
    if (pause > 0) await advance(pause)
    return ended()
  }

  test('every error code arrives unchanged, alone, under "errors" and all at once', async () => {
    const detail = 'détails: "ä", 1 of 2'
    const maps = [
      ...CODES.map((code) => ({ [code]: '' })),
      ...CODES.map((code) => ({ [code]: detail })),
      Object.fromEntries(CODES.map((code) => [code, code])),
    ]
    const bodies = [...maps, { errors: maps.at(-1) }]
    let next = 0
    stub.reply((response) => respond(response, 400, bodies[next], { phrase: 'A Phrase Of Its Own' }))
    for (const [index, body] of bodies.entries()) {
      next = index
      const { name, code, message, errors } = await errorOf({ recaptchaToken: `r${index}` })
      assert.deepEqual(
        { name, code, message, errors },
        { name: 'ApproovServiceError', code: 'service', message: 'A Phrase Of Its Own', errors: body.errors ?? body },
      )
    }
  })

  test('a refused refresh token ends the session, with the reason in errors', async () => {
    await fetchToken({ recaptchaToken: 'r' })
    stub.reply((response) => respond(response, 401, { 'aprv-invalid-refresh-token': 'expired' }))
    const { name, code, errors } = await errorOf({}, 'other.example.com')
    assert.deepEqual(
      { name, code, errors },
      { name: 'ApproovSessionError', code: 'session-expired', errors: { 'aprv-invalid-refresh-token': 'expired' } },
    )
    stub.reply()
    assert.equal((await errorOf({})).code, 'session-expired')
    assert.equal((await errorOf({ recaptchaToken: 'another' })).code, 'session-expired')
    assert.deepEqual(stub.requests(), [])
    assert.ok(await run(async () => (await Approov.getExpiries()).session <= Date.now()))
  })

  const strange = {
    'a redirect': (response) => respond(response, 302, '', { headers: { Location: '/elsewhere' } }),
    'an empty body': (response) => respond(response, 200, ''),
    'no content': (response) => respond(response, 204, ''),
    'an HTML page': (response) =>
      respond(response, 200, '<!doctype html><title>Login</title>', { headers: { 'Content-Type': 'text/html' } }),
    'JSON that breaks off': (response) => respond(response, 200, '{"tokens": {"api'),
    'a response that is cut in the middle': (response) => {
      response.writeHead(200, {
        'Content-Type': 'application/json',
        'Content-Length': '1000',
        'Access-Control-Allow-Origin': '*',
      })
      response.write('{"tokens": {', () => response.destroy())
    },
    'what claims to be gzip': (response) =>
      respond(response, 200, 'no gzip', { headers: { 'Content-Encoding': 'gzip' } }),
    'an endless body': (response) => {
      response.writeHead(200, { 'Content-Type': 'application/json', 'Access-Control-Allow-Origin': '*' })
      let isOpen = true
      response.once('close', () => (isOpen = false))
      const pour = () => isOpen && response.write(' '.repeat(65_536), () => setImmediate(pour))
      pour()
    },
    'a null': (response) => respond(response, 200, 'null'),
    'nesting without end': (response) => respond(response, 200, '['.repeat(100_000)),
    'a response without the origin allowed': (response, form) =>
      respond(response, 200, stub.grant(form), {
        headers: { 'Access-Control-Allow-Origin': 'https://elsewhere.example.com' },
      }),
    'a lifetime that is no number': (response, form) =>
      respond(response, 200, { ...stub.grant(form), 'token-lifetime': '120' }),
    'a session expiry beyond all time': (response, form) =>
      respond(response, 200, { ...stub.grant(form), expiries: { session: 1e300 } }),
    'tokens that are no text': (response, form) =>
      respond(response, 200, { ...stub.grant(form), tokens: { 'api.example.com': { a: 1 } } }),
    'a token with a line break': (response, form) =>
      respond(response, 200, { ...stub.grant(form), tokens: { 'api.example.com': 'a\r\nb' } }),
    'no refresh token': (response, form) => respond(response, 200, { ...stub.grant(form), 'refresh-token': undefined }),
    'an error map that is a list': (response) => respond(response, 400, ['aprv-no-site-key']),
    'an error map of numbers': (response) => respond(response, 400, { 'aprv-no-site-key': 1 }),
    'an error map that is empty': (response) => respond(response, 400, {}),
    'a status that is no error with an error map': (response) => respond(response, 304, { 'aprv-no-site-key': '' }),
  }

  test('strange responses are ApproovFetchErrors with a message, and change nothing of the session', async () => {
    const first = await fetchToken({ recaptchaToken: 'first' })
    for (const [what, reply] of Object.entries(strange)) {
      stub.reply(reply)
      const error = await errorAfterPause({ recaptchaToken: `second: ${what}` })
      assert.equal(error.name, 'ApproovFetchError', `${what}: ${JSON.stringify(error)}`)
      assert.ok(['network', 'invalid-response'].includes(error.code), `${what}: ${error.code}`)
      assert.match(error.message, /Approov service/, what)
      if (error.code === 'invalid-response') assert.equal(error.errors, `Error: ${error.message}`, what)
      if (error.code === 'network')
        assert.ok(error.cause && error.errors === error.cause, `${what}: ${JSON.stringify(error)}`)
      // Once more, if the response was lost: the service gives the same key the same outcome.
      assert.equal(stub.forms().length, error.code === 'network' ? 2 : 1, what)
      stub.reply()
      assert.notEqual(await fetchToken({}), first)
      assert.equal(
        new URLSearchParams(stub.forms()[0]).get('recaptcha-token'),
        null,
        `${what}: goes on with the first result`,
      )
    }
  })

  test('a grant is read whatever its media type, and a text that is no token is none', async () => {
    const asText = { headers: { 'Content-Type': 'text/plain' } }
    stub.reply((response, form) => respond(response, 200, stub.grant(form), asText))
    assert.match(await fetchToken({ recaptchaToken: 'r' }), /^token\.[^"{]*$/)
    stub.reply((response) => respond(response, 200, 'OK', asText))
    assert.equal((await errorOf({}, 'other.example.com')).code, 'invalid-response')
  })

  test('a response without the requested token is an ApproovServiceError that names the API', async () => {
    stub.reply((response, form) =>
      respond(response, 200, { ...stub.grant(form), tokens: { 'other.example.com': 'a.b.c' } }),
    )
    const { name, code, message, errors } = await errorOf({ recaptchaToken: 'r' })
    assert.deepEqual({ name, code, errors }, { name: 'ApproovServiceError', code: 'token-unavailable', errors: {} })
    assert.match(message, /api\.example\.com/)
  })

  test('a refresh is sent three times at most, with pauses that grow, and then the reason is reported', async () => {
    await fetchToken({ recaptchaToken: 'r' })
    stub.reply((response) => respond(response, 503, { 'recap-token-check': 'down' }))
    await begin({}, 'other.example.com')
    for (const [sent, least, most] of [
      [1, 125, 375],
      [2, 250, 750],
    ]) {
      await stub.received(sent)
      const pause = await run((least, most) => clock.timer(least, most), least, most)
      await advance(pause - 1)
      assert.deepEqual([stub.forms().length, await isSettled()], [sent, false])
      await advance(1)
    }
    const { name, retryable, errors, message } = await ended()
    assert.deepEqual(
      { name, retryable, errors, message },
      {
        name: 'ApproovServiceError',
        retryable: true,
        errors: { 'recap-token-check': 'down' },
        message: 'Service Unavailable',
      },
    )
    assert.equal(stub.forms().length, 3)
  })

  test('a request with a fresh result is sent once, whatever the response', async () => {
    stub.reply((response) => respond(response, 503, { 'recap-token-check': 'down' }))
    assert.equal((await errorOf({ recaptchaToken: 'r' })).retryable, true)
    assert.equal(stub.forms().length, 1)
  })

  test('after a refused nonce the request is sent once more with the fresh one, even with a fresh result', async () => {
    stub.reply((response, form, count) =>
      count === 1 ? respond(response, 401, { 'aprv-invalid-nonce': '' }) : respond(response, 200, stub.grant(form)),
    )
    await fetchToken({ recaptchaToken: 'r' })
    assert.equal(stub.forms().length, 2)
    stub.reply((response) => respond(response, 401, { 'aprv-invalid-nonce': 'again' }))
    const { name, errors } = await errorOf({ recaptchaToken: 'r2' })
    assert.deepEqual({ name, errors }, { name: 'ApproovServiceError', errors: { 'aprv-invalid-nonce': 'again' } })
    assert.equal(stub.forms().length, 2)
  })

  test('a pause longer than the time-out is not begun: the reason arrives at once', async () => {
    await fetchToken({ recaptchaToken: 'r' })
    stub.reply((response) =>
      respond(response, 429, { 'aprv-rate-limit': 'try later' }, { headers: { 'Retry-After': '60' } }),
    )
    // The clock stands still: a call that paused would never end.
    const { name, errors, retryable } = await errorOf({ timeout: 4000 }, 'other.example.com')
    assert.deepEqual(
      { name, errors, retryable },
      { name: 'ApproovServiceError', errors: { 'aprv-rate-limit': 'try later' }, retryable: true },
    )
    assert.equal(stub.forms().length, 1)
  })

  test('a short pause that the service asks for is kept', async () => {
    await fetchToken({ recaptchaToken: 'r' })
    stub.reply((response, form, count) => {
      if (count === 1) respond(response, 429, { 'aprv-rate-limit': '' }, { headers: { 'Retry-After': '1' } })
      else respond(response, 200, stub.grant(form))
    })
    await begin({}, 'other.example.com')
    await stub.received(1)
    assert.equal(await run(() => clock.timer(1, 9_999)), 1000)
    await advance(999)
    assert.deepEqual([stub.forms().length, await isSettled()], [1, false])
    await advance(1)
    assert.match((await ended()).token, /^token\./)
    assert.equal(stub.forms().length, 2)
  })

  test('a call is given up at its time-out, and its request with it', async () => {
    await fetchToken({ recaptchaToken: 'r' })
    stub.hold()
    await begin({ timeout: 300 }, 'other.example.com')
    await stub.received(1)
    await advance(299)
    assert.equal(await isSettled(), false)
    await advance(1)
    const { name, code, cause, errors, retryable } = await ended()
    assert.deepEqual({ name, code, retryable }, { name: 'ApproovFetchError', code: 'timeout', retryable: true })
    assert.match(cause, /^TimeoutError/)
    assert.equal(errors, cause)
    await stub.abandoned(1)
  })

  for (const [what, code] of [
    ['whose time-out has passed', 'timeout'],
    ['whose signal was aborted', 'aborted'],
  ]) {
    test(`a request that carries a result runs on for a caller ${what}, and its token is there for the next`, async () => {
      const release = stub.hold()
      await run(() => {
        globalThis.controller = new AbortController()
        const { signal } = globalThis.controller
        globalThis.call = described(
          Approov.fetchToken('api.example.com', { recaptchaToken: 'r', timeout: 300, signal }),
        )
      })
      await stub.received(1)
      if (code === 'timeout') await advance(300)
      else await run(() => globalThis.controller.abort())
      assert.equal((await ended()).code, code)
      await run(() => {
        globalThis.again = Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
      })
      release()
      const token = await run(() => globalThis.again)
      assert.match(token, /^token\./)
      assert.equal(await fetchToken({ recaptchaToken: 'r' }), token)
      assert.equal(stub.forms().length, 1)
    })
  }

  test('the time-out is ten seconds where none is given', async () => {
    stub.hold()
    await begin({ recaptchaToken: 'r' })
    await stub.received(1)
    await advance(9_999)
    assert.equal(await isSettled(), false)
    await advance(1)
    assert.equal((await ended()).code, 'timeout')
  })

  test('a failure that was shared is not remembered', async () => {
    stub.reply((response) => respond(response, 502, { 'recap-token-check': 'down' }))
    const codes = await run(async () => {
      const calls = Array.from({ length: 10 }, () => Approov.fetchToken('api.example.com', { recaptchaToken: 'r' }))
      return (await Promise.allSettled(calls)).map((/** @type {any} */ { reason }) => Object.keys(reason.errors)[0])
    })
    assert.deepEqual(codes, Array(10).fill('recap-token-check'))
    assert.equal(stub.forms().length, 1)
    stub.reply()
    assert.match(await fetchToken({ recaptchaToken: 'r' }), /^token\./)
  })
})
