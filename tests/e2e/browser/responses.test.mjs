// Whatever the service, or something in its place, answers: the specified error, and a session that goes on.
import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { answer, grant, useStub } from '../harness/stub.mjs'

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
  'aprv-origin-not-allowed',
  'aprv-rate-limit',
  'aprv-unavailable',
]

test('the codes of these tests are all that the service has', async () => {
  const directory = new URL('../../../service/src/', import.meta.url)
  const sources = (await readdir(directory)).filter((name) => name.endsWith('.rs'))
  const texts = await Promise.all(sources.map((name) => readFile(new URL(name, directory), 'utf8')))
  const codes = new Set(texts.join('').match(/(?<=")(?:aprv|rqst|fp|hcap|recap)-[a-z0-9-]+(?=")/g))
  assert.deepEqual([...codes].sort(), [...CODES].sort())
})

for (const engine of chosenEngines()) {
  describe(`answers of a service in ${ENGINES[engine].title}`, () => {
    /** A page with a session that has not asked for a token yet. */
    const suite = useStub(engine, async (options) => {
      Object.assign(globalThis, await import('/approov.js'))
      await Approov.initializeSession(options)
    })
    let world
    let stub
    before(() => {
      ;({ world, stub } = suite)
    })

    const fetchToken = (options, api = 'api.example.com') =>
      world.run((api, options) => Approov.fetchToken(api, options), api, options)
    /** What the call rejects with, as data. */
    const errorOf = (options, api = 'api.example.com') =>
      world.run(
        async (api, options) => {
          try {
            return { token: await Approov.fetchToken(api, options) }
          } catch (error) {
            const plain = (value) => (value instanceof Error ? `${value.name}: ${value.message}` : value)
            const { name, message, code, retryable, errors, cause } = error
            return { name, message, code, retryable, errors: plain(errors), cause: plain(cause) }
          }
        },
        api,
        options,
      )

    test('every error code arrives unchanged, alone, under "errors" and all at once', async () => {
      const detail = 'détails: "ä", 1 of 2'
      const maps = [
        ...CODES.map((code) => ({ [code]: '' })),
        ...CODES.map((code) => ({ [code]: detail })),
        Object.fromEntries(CODES.map((code) => [code, code])),
      ]
      const bodies = [...maps, { errors: maps.at(-1) }]
      let next = 0
      stub.reply((response) => answer(response, 400, bodies[next], { phrase: 'A Phrase Of Its Own' }))
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
      stub.reply((response) => answer(response, 401, { 'aprv-invalid-refresh-token': 'expired' }))
      const { name, code, errors } = await errorOf({}, 'other.example.com')
      assert.deepEqual(
        { name, code, errors },
        { name: 'ApproovSessionError', code: 'session-expired', errors: { 'aprv-invalid-refresh-token': 'expired' } },
      )
      stub.reply()
      assert.equal((await errorOf({})).code, 'session-expired')
      assert.equal((await errorOf({ recaptchaToken: 'another' })).code, 'session-expired')
      assert.deepEqual(stub.requests(), [])
      assert.ok((await world.run(() => Approov.getExpiries())).session <= Date.now())
    })

    const strange = {
      'a redirect': (response) => answer(response, 302, '', { headers: { Location: '/elsewhere' } }),
      'an empty body': (response) => answer(response, 200, ''),
      'no content': (response) => answer(response, 204, ''),
      'an HTML page': (response) =>
        answer(response, 200, '<!doctype html><title>Login</title>', { headers: { 'Content-Type': 'text/html' } }),
      'JSON that breaks off': (response) => answer(response, 200, '{"tokens": {"api'),
      'an answer that is cut in the middle': (response) => {
        response.writeHead(200, {
          'Content-Type': 'application/json',
          'Content-Length': '1000',
          'Access-Control-Allow-Origin': '*',
        })
        response.write('{"tokens": {', () => setTimeout(() => response.destroy(), 50))
      },
      'what claims to be gzip': (response) =>
        answer(response, 200, 'no gzip', { headers: { 'Content-Encoding': 'gzip' } }),
      'an endless body': (response) => {
        response.writeHead(200, { 'Content-Type': 'application/json', 'Access-Control-Allow-Origin': '*' })
        let isOpen = true
        response.once('close', () => (isOpen = false))
        const pour = () => isOpen && response.write(' '.repeat(65_536), () => setImmediate(pour))
        pour()
      },
      'a null': (response) => answer(response, 200, 'null'),
      'nesting without end': (response) => answer(response, 200, '['.repeat(100_000)),
      'an answer without the origin allowed': (response, form) =>
        answer(response, 200, grant(form), {
          headers: { 'Access-Control-Allow-Origin': 'https://elsewhere.example.com' },
        }),
      'a lifetime that is no number': (response, form) =>
        answer(response, 200, { ...grant(form), 'token-lifetime': '120' }),
      'a session expiry beyond all time': (response, form) =>
        answer(response, 200, { ...grant(form), expiries: { session: 1e300 } }),
      'tokens that are no text': (response, form) =>
        answer(response, 200, { ...grant(form), tokens: { 'api.example.com': { a: 1 } } }),
      'a token with a line break': (response, form) =>
        answer(response, 200, { ...grant(form), tokens: { 'api.example.com': 'a\r\nb' } }),
      'no refresh token': (response, form) => answer(response, 200, { ...grant(form), 'refresh-token': undefined }),
      'an error map that is a list': (response) => answer(response, 400, ['aprv-no-site-key']),
      'an error map of numbers': (response) => answer(response, 400, { 'aprv-no-site-key': 1 }),
      'an error map that is empty': (response) => answer(response, 400, {}),
      'a status that is no error with an error map': (response) => answer(response, 304, { 'aprv-no-site-key': '' }),
    }

    test('strange answers are ApproovFetchErrors with a message, and change nothing of the session', async () => {
      const first = await fetchToken({ recaptchaToken: 'first' })
      for (const [what, reply] of Object.entries(strange)) {
        stub.reply(reply)
        const error = await errorOf({ recaptchaToken: `second: ${what}` })
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
      stub.reply((response, form) => answer(response, 200, grant(form), { headers: { 'Content-Type': 'text/plain' } }))
      assert.match(await fetchToken({ recaptchaToken: 'r' }), /^token\.[^"{]*$/)
      stub.reply((response) => answer(response, 200, 'OK', { headers: { 'Content-Type': 'text/plain' } }))
      assert.equal((await errorOf({}, 'other.example.com')).code, 'invalid-response')
    })

    test('an answer without the token that was asked for is an ApproovServiceError that names the API', async () => {
      stub.reply((response, form) =>
        answer(response, 200, { ...grant(form), tokens: { 'other.example.com': 'a.b.c' } }),
      )
      const { name, code, message, errors } = await errorOf({ recaptchaToken: 'r' })
      assert.deepEqual({ name, code, errors }, { name: 'ApproovServiceError', code: 'token-unavailable', errors: {} })
      assert.match(message, /api\.example\.com/)
    })

    test('a refresh is sent three times at most, with pauses that grow, and then tells the reason', async () => {
      await fetchToken({ recaptchaToken: 'r' })
      const times = []
      stub.reply((response) => {
        times.push(Date.now())
        answer(response, 503, { 'recap-token-check': 'down' })
      })
      const { name, retryable, errors, message } = await errorOf({}, 'other.example.com')
      assert.deepEqual(
        { name, retryable, errors, message },
        {
          name: 'ApproovServiceError',
          retryable: true,
          errors: { 'recap-token-check': 'down' },
          message: 'Service Unavailable',
        },
      )
      assert.equal(times.length, 3)
      assert.ok(times[1] - times[0] >= 120 && times[2] - times[1] >= 245, `${times}`)
    })

    test('a request with a fresh result is sent once, whatever is answered', async () => {
      stub.reply((response) => answer(response, 503, { 'recap-token-check': 'down' }))
      assert.equal((await errorOf({ recaptchaToken: 'r' })).retryable, true)
      assert.equal(stub.forms().length, 1)
    })

    test('a refused nonce is answered once with the fresh one, even with a fresh result', async () => {
      stub.reply((response, form, count) =>
        count === 1 ? answer(response, 401, { 'aprv-invalid-nonce': '' }) : answer(response, 200, grant(form)),
      )
      await fetchToken({ recaptchaToken: 'r' })
      assert.equal(stub.forms().length, 2)
      stub.reply((response) => answer(response, 401, { 'aprv-invalid-nonce': 'again' }))
      const { name, errors } = await errorOf({ recaptchaToken: 'r2' })
      assert.deepEqual({ name, errors }, { name: 'ApproovServiceError', errors: { 'aprv-invalid-nonce': 'again' } })
      assert.equal(stub.forms().length, 2)
    })

    test('a pause longer than the time-out is not begun: the reason arrives at once', async () => {
      await fetchToken({ recaptchaToken: 'r' })
      stub.reply((response) =>
        answer(response, 429, { 'aprv-rate-limit': 'try later' }, { headers: { 'Retry-After': '60' } }),
      )
      const begin = Date.now()
      const { name, errors, retryable } = await errorOf({ timeout: 4000 }, 'other.example.com')
      assert.deepEqual(
        { name, errors, retryable },
        { name: 'ApproovServiceError', errors: { 'aprv-rate-limit': 'try later' }, retryable: true },
      )
      assert.ok(Date.now() - begin < 2000)
      assert.equal(stub.forms().length, 1)
    })

    test('a short pause that the service asks for is kept', async () => {
      await fetchToken({ recaptchaToken: 'r' })
      const times = []
      stub.reply((response, form, count) => {
        times.push(Date.now())
        if (count === 1) answer(response, 429, { 'aprv-rate-limit': '' }, { headers: { 'Retry-After': '1' } })
        else answer(response, 200, grant(form))
      })
      await fetchToken({}, 'other.example.com')
      assert.ok(times[1] - times[0] >= 990, `${times}`)
    })

    test('an answer past the time-out is given up, and its request with it', async () => {
      await fetchToken({ recaptchaToken: 'r' })
      stub.reply(() => {})
      const begin = Date.now()
      const { name, code, cause, errors, retryable } = await errorOf({ timeout: 300 }, 'other.example.com')
      assert.deepEqual({ name, code, retryable }, { name: 'ApproovFetchError', code: 'timeout', retryable: true })
      assert.match(cause, /^TimeoutError/)
      assert.equal(errors, cause)
      assert.ok(Date.now() - begin < 2000)
      for (let i = 0; stub.cut() === 0 && i < 40; i++) await new Promise((resolve) => setTimeout(resolve, 50))
      assert.equal(stub.cut(), 1)
    })

    for (const [what, options] of [
      ['whose time-out has passed', { timeout: 300 }],
      ['whose signal was aborted', { abort: 300 }],
    ]) {
      test(`a request that carries a result runs on for a caller ${what}, and its token is there for the next`, async () => {
        let respond
        stub.reply((response, form) => (respond = () => answer(response, 200, grant(form))))
        const code = await world.run(async ({ timeout, abort }) => {
          const signal = abort && AbortSignal.timeout(abort)
          const error = await Approov.fetchToken('api.example.com', { recaptchaToken: 'r', timeout, signal }).catch(
            (error) => error,
          )
          globalThis.again = Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
          return error.code
        }, options)
        assert.equal(code, options.abort ? 'aborted' : 'timeout')
        respond()
        const token = await world.run(() => globalThis.again)
        assert.match(token, /^token\./)
        assert.equal(await fetchToken({ recaptchaToken: 'r' }), token)
        assert.deepEqual([stub.forms().length, stub.cut()], [1, 0])
      })
    }

    test('the time-out is ten seconds where none is given', async () => {
      stub.reply(() => {})
      const { code, delays } = await world.run(async () => {
        const { setTimeout } = globalThis
        const delays = []
        globalThis.setTimeout = (work, delay, ...rest) => {
          delays.push(delay)
          return setTimeout(work, delay / 100, ...rest)
        }
        const error = await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' }).catch((error) => error)
        globalThis.setTimeout = setTimeout
        return { code: error.code, delays }
      })
      assert.equal(code, 'timeout')
      assert.ok(delays.includes(10_000) && delays.every((delay) => delay <= 10_000), `${delays}`)
    })

    test('a failure that was shared is not remembered', async () => {
      stub.reply((response) => answer(response, 502, { 'recap-token-check': 'down' }))
      const codes = await world.run(async () => {
        const calls = Array.from({ length: 10 }, () => Approov.fetchToken('api.example.com', { recaptchaToken: 'r' }))
        return (await Promise.allSettled(calls)).map(({ reason }) => Object.keys(reason.errors)[0])
      })
      assert.deepEqual(codes, Array(10).fill('recap-token-check'))
      assert.equal(stub.forms().length, 1)
      stub.reply()
      assert.match(await fetchToken({ recaptchaToken: 'r' }), /^token\./)
    })
  })
}
