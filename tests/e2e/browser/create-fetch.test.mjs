// createFetch beside bare fetch: whatever is not token, proof or their errors has to be the same. Then what it does of its own.
import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'

import { EmbeddedJWK, jwtVerify } from 'jose'

import { claimsOf, createApi, sha256 } from '../harness/api.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { createStub, describeWithStub } from '../harness/stub.mjs'
import { startSite } from '../harness/world.mjs'

/**
 * Calls by name: a function in the page that gets the API's and the site's URL and gives the arguments of `fetch`, and what differs from
 * bare `fetch`: `ours` (`'untouched'`: no token; `'redirected'`: our own error; an outcome: what ours comes to in every engine).
 *
 * @type {Record<string, {call: (api: string, site: string) => any, ours?: 'untouched' | 'redirected' | object, reply?: any}>}
 */
const CALLS = {
  'a string': { call: (api) => [`${api}/a`] },
  'a URL': { call: (api) => [new URL('/a?b=c#d', api)] },
  'a relative URL of the page': { call: () => ['/blank.html?x=1'] },
  'something with toString': { call: (api) => [{ toString: () => `${api}/a` }] },
  'a Request': { call: (api) => [new Request(`${api}/a`, { headers: { 'x-one': '1' } })] },
  'a Request and an init that replaces its headers': {
    call: (api) => [new Request(`${api}/a`, { headers: { 'x-one': '1' } }), { headers: { 'x-two': '2' } }],
  },
  'a Request with a body': { call: (api) => [new Request(`${api}/a`, { method: 'POST', body: 'text' })] },
  'a Request and another method': {
    call: (api) => [new Request(`${api}/a`, { method: 'POST', body: 'text' }), { method: 'PUT' }],
  },
  'a Request and another body': {
    call: (api) => [new Request(`${api}/a`, { method: 'POST', body: 'text' }), { body: 'other' }],
  },
  'a Request whose body was read': {
    call: (api) => {
      const request = new Request(`${api}/a`, { method: 'POST', body: 'text' })
      void request.text()
      return [request]
    },
  },
  Headers: {
    call: (api) => [
      `${api}/a`,
      {
        headers: new Headers([
          ['x-one', '1'],
          ['x-one', '2'],
        ]),
      },
    ],
  },
  'a list of headers': {
    call: (api) => [
      `${api}/a`,
      {
        headers: [
          ['X-One', '1'],
          ['accept', 'text/x'],
        ],
      },
    ],
  },
  'a record of headers': { call: (api) => [`${api}/a`, { headers: { 'X-One': 'ä', 'content-type': 'text/y' } }] },
  'a text body': { call: (api) => [`${api}/a`, { method: 'POST', body: 'grüße 🎉' }] },
  bytes: { call: (api) => [`${api}/a`, { method: 'POST', body: new Uint8Array([0, 1, 2, 255]) }] },
  'a view of part of a buffer': {
    call: (api) => [`${api}/a`, { method: 'POST', body: new DataView(new Uint8Array([9, 8, 7, 6]).buffer, 1, 2) }],
  },
  'a buffer': { call: (api) => [`${api}/a`, { method: 'POST', body: new Uint8Array(70_000).fill(7).buffer }] },
  'a Blob with a type': {
    call: (api) => [`${api}/a`, { method: 'PUT', body: new Blob(['blob'], { type: 'text/z' }) }],
  },
  'a Blob without a type': { call: (api) => [`${api}/a`, { method: 'PUT', body: new Blob(['blob']) }] },
  URLSearchParams: { call: (api) => [`${api}/a`, { method: 'POST', body: new URLSearchParams({ a: 'b c', d: 'é' }) }] },
  FormData: {
    call: (api) => {
      const form = new FormData()
      form.append('a "b"', 'line\nline')
      form.append('file', new Blob(['content'], { type: 'text/plain' }), 'name.txt')
      return [`${api}/a`, { method: 'POST', body: form }]
    },
  },
  'an empty body': { call: (api) => [`${api}/a`, { method: 'POST', body: '' }] },
  'no body': { call: (api) => [`${api}/a`, { method: 'POST' }] },
  'a body that is no body': { call: (api) => [`${api}/a`, { method: 'POST', body: 42 }] },
  HEAD: { call: (api) => [`${api}/a`, { method: 'HEAD' }] },
  DELETE: { call: (api) => [`${api}/a`, { method: 'DELETE' }] },
  'a method in lower case': { call: (api) => [`${api}/a`, { method: 'post', body: 'x' }] },
  'a body with GET': { call: (api) => [`${api}/a`, { body: 'x' }] },
  'a forbidden method': { call: (api) => [`${api}/a`, { method: 'TRACE' }] },
  'a header that is none': { call: (api) => [`${api}/a`, { headers: { 'a b': 'c' } }] },
  'a header that the browser alone sets': { call: (api) => [`${api}/a`, { headers: { Cookie: 'x', 'x-one': '1' } }] },
  'a URL that is none': { call: () => ['http://'] },
  'a URL with a password': { call: (api) => [api.replace('//', '//user:password@')] },
  'no argument': { call: () => [] },
  'an init of null': { call: (api) => [`${api}/a`, null] },
  'an aborted signal': { call: (api) => [`${api}/a`, { signal: AbortSignal.abort('why') }] },
  'an aborted signal without a reason': { call: (api) => [`${api}/a`, { signal: AbortSignal.abort() }] },
  'a signal in a Request': {
    call: (api) => [new Request(`${api}/a`, { signal: AbortSignal.abort(new RangeError('why')) })],
  },
  'a signal that is aborted while the response is awaited': {
    call: (api) => {
      const controller = new AbortController()
      globalThis.hanging = () => controller.abort('late')
      return [`${api}/hang`, { signal: controller.signal }]
    },
    reply: { hang: true },
    ours: { rejected: 'late' },
  },
  'no store': { call: (api) => [`${api}/a`, { cache: 'no-store' }] },
  credentials: { call: (api) => [`${api}/a`, { credentials: 'include' }] },
  'no referrer': { call: (api) => [`${api}/a`, { referrerPolicy: 'no-referrer' }] },
  'an empty referrer': { call: (api) => [`${api}/a`, { referrer: '' }] },
  'another referrer': { call: (api) => [`${api}/a`, { referrer: '/other', referrerPolicy: 'unsafe-url' }] },
  'a referrer in a Request': {
    call: (api) => [new Request(`${api}/a`, { referrer: '/other', referrerPolicy: 'unsafe-url' })],
  },
  'the right integrity': {
    call: (api) => [`${api}/a`, { integrity: 'sha256-Zhbu2hAXmcnUFb7bpbqK/qLZ7cEvYx/kTp0b+E7cgXY=' }],
    reply: { body: 'integrity' },
  },
  'the wrong integrity': {
    call: (api) => [`${api}/a`, { integrity: 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=' }],
  },
  keepalive: { call: (api) => [`${api}/a`, { method: 'POST', body: 'x', keepalive: true }] },
  'a priority': { call: (api) => [`${api}/a`, { priority: 'low' }] },
  'a priority that is none': { call: (api) => [`${api}/a`, { priority: 'soon' }] },
  'the mode no-cors': { call: (api) => [`${api}/a`, { mode: 'no-cors' }], ours: 'untouched' },
  'the mode same-origin for another origin': { call: (api) => [`${api}/a`, { mode: 'same-origin' }] },
  'the mode navigate': { call: (api) => [`${api}/a`, { mode: 'navigate' }], ours: 'untouched' },
  'another origin': { call: (api) => [`${api.replace('127.0.0.1', 'localhost')}/a`], ours: 'untouched' },
  'a data URL': { call: () => ['data:text/plain,hello'], ours: 'untouched' },
  'a blob URL': { call: () => [URL.createObjectURL(new Blob(['hello']))], ours: 'untouched' },
  'a redirect': {
    call: (api) => [`${api}/from`],
    ours: 'redirected',
    reply: { status: 302, headers: { Location: '/to' } },
  },
  'a redirect to another origin': {
    call: (api) => [`${api}/from`, { method: 'POST', body: 'x' }],
    ours: 'redirected',
    reply: { status: 307, headers: { Location: 'http://localhost:9/' } },
  },
  'a redirect that the app forbids': {
    call: (api) => [`${api}/from`, { redirect: 'error' }],
    ours: 'redirected',
    reply: { status: 302, headers: { Location: '/to' } },
  },
  'a redirect that the app looks at itself': {
    call: (api) => [`${api}/from`, { redirect: 'manual' }],
    reply: { status: 302, headers: { Location: '/to' } },
  },
  'a connection that breaks': { call: (api) => [`${api}/a`], reply: { cut: true } },
  ...Object.fromEntries(
    [204, 300, 400, 402, 403, 404, 409, 429, 500, 502, 503].map((status) => [
      `status ${status}`,
      { call: (api) => [`${api}/a`, { method: 'POST', body: 'x' }], reply: { status, body: `of ${status}` } },
    ]),
  ),
  'a 401 of the app': { call: (api) => [`${api}/a`], reply: { status: 401, body: 'log in' } },
  'a 401 for another scheme': {
    call: (api) => [`${api}/a`],
    reply: { status: 401, headers: { 'WWW-Authenticate': 'Bearer error="invalid_token"' } },
  },
  'a 401 for DPoP without an error': {
    call: (api) => [`${api}/a`],
    reply: { status: 401, headers: { 'WWW-Authenticate': 'DPoP algs="ES256"' } },
  },
  'a 401 for DPoP with an error of the app': {
    call: (api) => [`${api}/a`],
    reply: { status: 401, headers: { 'WWW-Authenticate': 'DPoP error="insufficient_scope"' } },
  },
  'a 401 that speaks of DPoP in a text': {
    call: (api) => [`${api}/a`],
    reply: { status: 401, headers: { 'WWW-Authenticate': 'Basic realm="DPoP error=\\"invalid_token\\", x"' } },
  },
}

/** Headers that are ours, or of the connection. */
const NOT_COMPARED = new Set(['approov-token', 'dpop', 'connection', 'content-length'])

/** What reached the backend, as far as it has to be the same; the boundary of a form is random. */
function comparable({ method, url, headers, hash, form }) {
  const compared = Object.entries(headers).filter(([name]) => !NOT_COMPARED.has(name))
  const all = { ...Object.fromEntries(compared), ...(form && { 'content-type': 'multipart/form-data' }) }
  return { method, url, headers: all, body: form ?? hash }
}

for (const engine of chosenEngines()) {
  describe(`createFetch beside fetch in ${ENGINES[engine].title}`, () => {
    const stub = createStub()
    const api = createApi()
    let site
    let browser
    before(async () => {
      site = await startSite()
      await stub.start()
      await api.start()
      browser = await openBrowser(engine)
      await browser.webdriver.get(`${site.url}/blank.html`)
      await browser.run(
        async (options, api) => {
          const { Approov } = await import('/approov.js')
          const origins = [api, location.origin]
          globalThis.apiFetch = Approov.createFetch({
            origins,
            session: options,
            renew: () => ({ recaptchaToken: 'r' }),
          })
          await apiFetch.renew()
          globalThis.describeOutcome = async (work) => {
            try {
              const response = await work()
              const { status, statusText, type, url, ok, redirected, bodyUsed } = response
              const headers = [...response.headers].filter(([name]) => name !== 'date')
              return { status, statusText, type, url, ok, redirected, bodyUsed, headers, text: await response.text() }
            } catch (error) {
              const isError = error instanceof Error || error instanceof DOMException
              return {
                rejected: isError ? error.name : error,
                code: error?.name?.startsWith('Approov') ? error.code : undefined,
              }
            }
          }
        },
        stub.options(),
        api.url,
      )
    })
    after(async () => {
      await browser?.close()
      for (const one of [stub, api]) if (one.url) await one.stop()
      await site?.stop()
    })

    /** What one call comes to, and what reached the backend. */
    async function outcomeOf(name, which) {
      const { call, reply } = CALLS[name]
      api.reply(() => reply ?? {})
      const outcome = browser.run(
        async (call, which, api, site, hangs) => {
          const args = globalThis.eval(call)(api, site)
          const work = () => (which === 'ours' ? globalThis.apiFetch(...args) : Reflect.apply(fetch, undefined, args))
          if (hangs) setTimeout(() => globalThis.hanging(), 300)
          return globalThis.describeOutcome(work)
        },
        call.toString(),
        which,
        api.url,
        site.url,
        Boolean(reply?.hang),
      )
      return { ...(await outcome), seen: [...api.seen()] }
    }

    for (const [name, { ours }] of Object.entries(CALLS)) {
      test(name, async () => {
        const { seen: expectedSeen, ...expected } = await outcomeOf(name, 'bare')
        const { seen, ...outcome } = await outcomeOf(name, 'ours')
        if (ours === 'redirected') {
          assert.deepEqual(outcome, { rejected: 'ApproovError', code: 'redirected' })
          assert.equal(seen.length, 1)
        } else {
          // The address of a blob is random.
          if (expected.url?.startsWith('blob:')) (delete expected.url, delete outcome.url)
          // A URL that is aborted before it is sent may or may not have been sent by either.
          assert.deepEqual(outcome, typeof ours === 'object' ? { code: null, ...ours } : expected)
          // A browser may send a request once more on another connection when one breaks.
          const sends = (all) => all.map(comparable).slice(0, CALLS[name].reply?.cut ? 1 : undefined)
          assert.deepEqual(sends(seen), sends(expectedSeen))
        }
        for (const { method, url, headers, hash, length } of seen) {
          assert.equal('dpop' in headers, ours !== 'untouched')
          assert.equal('approov-token' in headers, ours !== 'untouched')
          if (ours === 'untouched') continue
          const { payload } = await jwtVerify(headers.dpop, EmbeddedJWK, { typ: 'dpop+jwt', algorithms: ['ES256'] })
          const [path, query] = url.split('?')
          assert.equal(payload.htm, method)
          assert.equal(payload.htu, `${api.url}${path}`)
          assert.equal(payload.htq, query && sha256(query))
          assert.equal(payload.ath, sha256(headers['approov-token']))
          assert.equal(payload.msgs, length ? hash : undefined)
          assert.match(String(payload.nonce), /^[\w-]{22}$/)
        }
      })
    }
  })
}

/** Calls of `createFetch` that are refused at once, by what is wrong with them. */
const REFUSED = {
  nothing: () => undefined,
  'no origins': () => ({}),
  'an empty list of origins': () => ({ origins: [] }),
  'a text for origins': () => ({ origins: 'https://api.example.com' }),
  'an origin with a path': () => ({ origins: ['https://api.example.com/v1'] }),
  'an origin with a query': () => ({ origins: ['https://api.example.com?'] }),
  'an origin with a star': () => ({ origins: ['https://*.example.com'] }),
  'an origin by http': () => ({ origins: ['http://api.example.com'] }),
  'a host': () => ({ origins: ['api.example.com'] }),
  'an inherited list of origins': () => Object.create({ origins: ['https://api.example.com'] }),
  'a scheme that is none': () => ({ origins: ['https://a.example'], scheme: 'bearer' }),
  'a body that is none': () => ({ origins: ['https://a.example'], body: 'sign' }),
  'a renew that is none': () => ({ origins: ['https://a.example'], renew: 'soon' }),
  'a fetch that is none': () => ({ origins: ['https://a.example'], fetch: {} }),
  'a bind that is none': () => ({ origins: ['https://a.example'], bind: 'authorization' }),
  'a header name that is none': () => ({ origins: ['https://a.example'], bind: ['a b'] }),
  'an empty api': () => ({ origins: ['https://a.example'], api: '' }),
  'options that cannot be read': () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    return proxy
  },
  'a session that is none': () => ({ origins: ['https://a.example'], session: 'me' }),
}

describeWithStub('createFetch', ({ stub, run, advance }) => {
  const backend = createApi()
  before(() => backend.start())
  after(() => backend.stop())
  beforeEach(async () => {
    backend.reply()
    await run((api) => {
      globalThis.api = api
      globalThis.checks = []
      globalThis.more = {}
      globalThis.make = (more = {}) =>
        Approov.createFetch({
          origins: [api],
          session: options,
          renew: ({ reason, keys }) => {
            checks.push(reason)
            return { recaptchaToken: `result ${checks.length} for ${keys.recaptchaSiteKey}` }
          },
          ...more,
        })
      globalThis.statusOf = (promise) => outcome(promise.then(({ status }) => status))
    }, backend.url)
  })

  const challenge = (error, more = {}) => ({
    status: 401,
    headers: { 'WWW-Authenticate': `DPoP error="${error}", algs="ES256"`, ...more },
  })
  const tokensSeen = () => backend.seen().map(({ headers }) => headers['approov-token'])

  for (const [name, make] of Object.entries(REFUSED)) {
    test(`refused at once: ${name}`, async () => {
      const thrown = await run((make) => {
        try {
          Approov.createFetch(globalThis.eval(make)())
        } catch (error) {
          return [error.name, error.code]
        }
        return 'nothing'
      }, make.toString())
      assert.deepEqual(thrown, ['ApproovError', 'invalid-argument'])
    })
  }

  test('nothing is loaded or sent before the first call, which begins the session and passes the check once', async () => {
    const before = await run(() => {
      globalThis.one = make()
      globalThis.two = make()
    })
    assert.equal(before, null)
    assert.deepEqual(stub.requests(), [])
    const statuses = await run(() =>
      Promise.all([statusOf(one(`${api}/1`)), statusOf(two(`${api}/2`)), statusOf(one(`${api}/3`))]),
    )
    assert.deepEqual(statuses, [200, 200, 200])
    assert.deepEqual(await run(() => checks), ['start'])
    assert.equal(stub.forms().length, 1)
    assert.match(stub.forms()[0], /result\+1\+for\+re|result%201%20for%20re/)
  })

  test('the session of initializeSession is used, and without any: not-initialized', async () => {
    const outcomes = await run(async () => {
      const apiFetch = make({ session: undefined })
      const without = await statusOf(apiFetch(`${api}/`))
      await Approov.initializeSession(options)
      return [without, await statusOf(apiFetch(`${api}/`)), checks]
    })
    assert.deepEqual(outcomes, ['ApproovSessionError not-initialized', 200, ['start']])
  })

  test('what renew throws is what the call rejects with, and the next call runs the check again', async () => {
    const outcomes = await run(async () => {
      let count = 0
      const apiFetch = make({
        renew: async () => {
          count += 1
          if (count === 1) throw new RangeError('blocked')
          return { recaptchaToken: 'r' }
        },
      })
      const first = await apiFetch(`${api}/`).catch((error) => error.name + error.message)
      return [first, await statusOf(apiFetch(`${api}/`)), count]
    })
    assert.deepEqual(outcomes, ['RangeErrorblocked', 200, 2])
  })

  test('a check that never ends is ended after two minutes', async () => {
    await run(() => {
      globalThis.reason = new Promise((resolve) => {
        globalThis.call = make({
          renew: ({ signal }) => {
            signal.addEventListener('abort', () => resolve(signal.reason.code))
            globalThis.isRunning = true
            return new Promise(() => {})
          },
        })(`${api}/`).catch((error) => [error.name, error.code, error.retryable])
      })
    })
    await run(async () => {
      while (!globalThis.isRunning) await new Promise((resolve) => setTimeout(resolve))
    })
    await advance(120_000)
    assert.deepEqual(await run(() => call), ['ApproovCheckError', 'check-timeout', true])
    assert.equal(await run(() => reason), 'check-timeout')
  })

  test('a session that has ended is renewed beside it, once for all who wait', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    await advance(2 * 3_600_000)
    const statuses = await run(() => Promise.all([1, 2, 3].map((n) => statusOf(apiFetch(`${api}/${n}`)))))
    assert.deepEqual(statuses, [200, 200, 200])
    assert.deepEqual(await run(() => checks), ['start', 'expired'])
  })

  test('renew() checks ahead, and the old session serves until the new one has its token', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    const release = stub.hold()
    await run(() => void (globalThis.renewing = outcome(apiFetch.renew())))
    await stub.received(1)
    assert.equal(await run(() => statusOf(apiFetch(`${api}/`))), 200)
    release()
    await run(() => renewing)
    assert.equal(await run(() => statusOf(apiFetch(`${api}/`))), 200)
    const [first, during, afterwards] = tokensSeen()
    assert.equal(first, during)
    assert.notEqual(during, afterwards)
    assert.deepEqual(await run(() => checks), ['start', 'ahead'])
  })

  test('a renewal that fails leaves the old session as it was', async () => {
    const outcomes = await run(async () => {
      const apiFetch = make()
      await apiFetch(`${api}/`)
      const failing = make({ renew: () => Promise.reject(new RangeError('no')) })
      const renewed = await failing.renew().catch((error) => error.name)
      return [renewed, await statusOf(apiFetch(`${api}/`))]
    })
    assert.deepEqual(outcomes, ['RangeError', 200])
    const [one, two] = tokensSeen()
    assert.equal(one, two)
  })

  test('initializeSession during a renewal: the session of the app is used, and that of the renewal dropped', async () => {
    await run(async () => {
      globalThis.apiFetch = make({
        renew: ({ signal }) => new Promise((resolve) => (globalThis.solve = () => resolve({ recaptchaToken: 'late' }))),
      })
      globalThis.call = statusOf(apiFetch(`${api}/`))
      while (!globalThis.solve) await new Promise((resolve) => setTimeout(resolve))
      await Approov.initializeSession(options)
      globalThis.own = await Approov.fetchToken('127.0.0.1', { recaptchaToken: 'own' })
      solve()
    })
    assert.equal(await run(() => call), 200)
    assert.deepEqual(tokensSeen(), [await run(() => own)])
  })

  test('use_dpop_nonce: signed again with the nonce, which is used from then on', async () => {
    backend.reply(({ headers }) =>
      claimsOf(headers.dpop).nonce === 'server' ? {} : challenge('use_dpop_nonce', { 'DPoP-Nonce': 'server' }),
    )
    const statuses = await run(async () => {
      globalThis.apiFetch = make()
      return [
        await statusOf(apiFetch(`${api}/1`, { method: 'POST', body: 'text' })),
        await statusOf(apiFetch(`${api}/2`)),
      ]
    })
    assert.deepEqual(statuses, [200, 200])
    const [one, two, three] = backend.seen()
    assert.equal(backend.seen().length, 3)
    assert.equal(one.hash, two.hash)
    assert.equal(claimsOf(three.headers.dpop).nonce, 'server')
    assert.notEqual(claimsOf(one.headers.dpop).jti, claimsOf(two.headers.dpop).jti)
  })

  test('a nonce that comes with a 200 or an error is used next; a demand for the nonce that was sent is not followed', async () => {
    backend.reply((request, count) =>
      count === 1
        ? { headers: { 'DPoP-Nonce': 'one' } }
        : count === 2
          ? { status: 500, headers: { 'DPoP-Nonce': 'two' } }
          : challenge('use_dpop_nonce', { 'DPoP-Nonce': 'two' }),
    )
    const statuses = await run(async () => {
      const apiFetch = make()
      return [
        await statusOf(apiFetch(`${api}/`)),
        await statusOf(apiFetch(`${api}/`)),
        await statusOf(apiFetch(`${api}/`)),
      ]
    })
    assert.deepEqual(statuses, [200, 500, 401])
    assert.deepEqual(
      backend
        .seen()
        .slice(1)
        .map(({ headers }) => claimsOf(headers.dpop).nonce),
      ['one', 'two'],
    )
  })

  test('a proof that is refused is signed again once, and not twice', async () => {
    backend.reply(() => challenge('invalid_dpop_proof'))
    assert.equal(await run(() => statusOf(make()(`${api}/`))), 401)
    assert.equal(backend.seen().length, 2)
  })

  test('an older token that is refused is refreshed, without a check', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    await advance(11_000)
    const [old] = tokensSeen()
    backend.reply(({ headers }) => (headers['approov-token'] === old ? challenge('invalid_token') : {}))
    assert.equal(await run(() => statusOf(apiFetch(`${api}/`))), 200)
    assert.equal(backend.seen().length, 2)
    assert.deepEqual(await run(() => checks), ['start'])
  })

  test('a fresh token that is refused, of a failed check, is renewed once, and for five minutes not again', async () => {
    backend.reply(() => challenge('invalid_token'))
    const statuses = await run(async () => {
      globalThis.apiFetch = make()
      return [
        await statusOf(apiFetch(`${api}/1`)),
        await statusOf(apiFetch(`${api}/2`)),
        await statusOf(apiFetch(`${api}/3`)),
      ]
    })
    assert.deepEqual(statuses, [401, 401, 401])
    assert.deepEqual(await run(() => checks), ['start', 'refused'])
    await advance(300_001)
    assert.equal(await run(() => statusOf(apiFetch(`${api}/4`))), 401)
    assert.deepEqual(await run(() => checks), ['start', 'refused', 'refused'])
  })

  test('a failed check renews by itself, and the call goes through', async () => {
    backend.reply((request, count) => (count === 1 ? challenge('invalid_token') : {}))
    assert.equal(await run(() => statusOf(make()(`${api}/`, { method: 'POST', body: 'x' }))), 200)
    assert.deepEqual(await run(() => checks), ['start', 'refused'])
    const [one, two] = backend.seen()
    assert.equal(one.hash, two.hash)
    assert.notEqual(one.headers['approov-token'], two.headers['approov-token'])
  })

  test('once an API has been content, the next refusal renews again', async () => {
    backend.reply((request, count) => (count === 1 || count === 3 ? challenge('invalid_token') : {}))
    const statuses = await run(async () => {
      const apiFetch = make()
      return [await statusOf(apiFetch(`${api}/`)), await statusOf(apiFetch(`${api}/`))]
    })
    assert.deepEqual(statuses, [200, 200])
    assert.deepEqual(await run(() => checks), ['start', 'refused', 'refused'])
  })

  test('calls that are refused at once share the renewal, and all go through', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    const [old] = tokensSeen()
    backend.reply(({ headers }) => (headers['approov-token'] === old ? challenge('invalid_token') : {}))
    const statuses = await run(() => Promise.all([1, 2, 3].map((n) => statusOf(apiFetch(`${api}/${n}`)))))
    assert.deepEqual(statuses, [200, 200, 200])
    assert.deepEqual(await run(() => checks), ['start', 'refused'])
  })

  test('calls that are refused at once after a renewal was of no use do not renew again', async () => {
    backend.reply(() => challenge('invalid_token'))
    const statuses = await run(() => {
      const apiFetch = make()
      return Promise.all([1, 2, 3].map((n) => statusOf(apiFetch(`${api}/${n}`))))
    })
    assert.deepEqual(statuses, [401, 401, 401])
    assert.deepEqual(await run(() => checks), ['start', 'refused'])
  })

  test('what reads as another URL the second time gets no token', async () => {
    const [outcome, other] = await run(async () => {
      const sent = []
      const apiFetch = make({ fetch: async (request) => (sent.push(request.url), new Response()) })
      let count = 0
      const input = { toString: () => (count++ ? 'https://other.example/' : `${api}/`) }
      return [await statusOf(apiFetch(/** @type {any} */ (input))), sent]
    })
    assert.deepEqual([outcome, other], ['ApproovError invalid-argument', []])
  })

  test('what only says that it is a Request gets no token for the URL that fetch makes of it', async () => {
    const [outcome, sent] = await run(async () => {
      const sent = []
      const apiFetch = make({ fetch: async (request) => (sent.push(request.url), new Response()) })
      const input = { url: `${api}/`, [Symbol.toStringTag]: 'Request', toString: () => 'https://other.example/' }
      return [await statusOf(apiFetch(/** @type {any} */ (input))), sent]
    })
    assert.deepEqual([outcome, sent], ['ApproovError invalid-argument', []])
  })

  test('headers(): an abort in any phase rejects with its reason', async () => {
    const before = await run(() =>
      make()
        .headers('GET', `${api}/`, { signal: AbortSignal.abort('at once') })
        .catch((reason) => reason),
    )
    assert.equal(before, 'at once')
    stub.hold()
    await run(() => {
      const controller = new AbortController()
      globalThis.abort = () => controller.abort('later')
      globalThis.call = make()
        .headers('GET', `${api}/`, { signal: controller.signal })
        .catch((reason) => reason)
    })
    await stub.received(1)
    const during = await run(() => {
      globalThis.abort()
      return call
    })
    assert.equal(during, 'later')
  })

  test('headers(): an abort while a token of the session is fetched rejects with its reason', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
      globalThis.other = make({ api: 'other.example' })
    })
    stub.hold()
    await run(() => {
      const controller = new AbortController()
      globalThis.abort = () => controller.abort('later')
      globalThis.call = globalThis.other
        .headers('GET', `${api}/`, { signal: controller.signal })
        .catch((reason) => reason?.code ?? reason)
    })
    await stub.received(1)
    const outcome = await run(() => {
      globalThis.abort()
      return call
    })
    assert.equal(outcome, 'later')
  })

  test('headers(): the proof names the method as XMLHttpRequest sends it', async () => {
    const methods = await run(async () => {
      const apiFetch = make()
      for (const method of ['post', 'Get', 'patch']) {
        const headers = await apiFetch.headers(method, `${api}/${method}`)
        const request = new XMLHttpRequest()
        request.open(method, `${api}/${method}`)
        for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value)
        await new Promise((resolve) => {
          request.onloadend = resolve
          request.send()
        })
      }
    })
    assert.equal(methods, null)
    assert.ok(backend.seen().length >= 2)
    for (const { method, headers } of backend.seen()) assert.equal(claimsOf(headers.dpop).htm, method)
  })

  test('the nonce of a response that comes after endSession is not kept', async () => {
    backend.reply(() => ({ headers: { 'DPoP-Nonce': 'late' } }))
    await run(() => {
      globalThis.apiFetch = make({
        fetch: async (request) => {
          const response = await fetch(request)
          globalThis.isWaiting = true
          await new Promise((resolve) => (globalThis.respond = resolve))
          return response
        },
      })
      globalThis.call = statusOf(apiFetch(`${api}/1`))
    })
    await run(async () => {
      while (!globalThis.isWaiting) await new Promise((resolve) => setTimeout(resolve))
      await Approov.endSession()
      globalThis.respond()
      await call
    })
    await run(() => statusOf(make()(`${api}/2`)))
    assert.notEqual(claimsOf(backend.seen().at(-1).headers.dpop).nonce, 'late')
  })

  test('never more than four sends', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    await advance(11_000)
    backend.reply((request, count) =>
      count % 2 ? challenge('use_dpop_nonce', { 'DPoP-Nonce': `n${count}` }) : challenge('invalid_token'),
    )
    assert.equal(await run(() => statusOf(apiFetch(`${api}/`))), 401)
    assert.ok(backend.seen().length <= 4, `${backend.seen().length} sends`)
  })

  test('a retry that cannot be prepared returns the refusal, whose body can be read', async () => {
    backend.reply(() => ({ ...challenge('invalid_token'), body: 'the API says why' }))
    const [status, text] = await run(async () => {
      let count = 0
      const apiFetch = make({
        renew: () => {
          count += 1
          if (count > 1) throw new Error('blocked')
          return { recaptchaToken: 'r' }
        },
      })
      const response = await apiFetch(`${api}/`)
      return [response.status, await response.text()]
    })
    assert.deepEqual([status, text], [401, 'the API says why'])
  })

  test('bound tokens: the values of the headers are the payload, and another value gets another token', async () => {
    const statuses = await run(async () => {
      const apiFetch = make({ bind: ['Authorization', 'x-device'] })
      const send = (headers) => statusOf(apiFetch(`${api}/`, { headers }))
      return [
        await send({ authorization: 'Bearer a', 'X-Device': 'ü' }),
        await send({ authorization: 'Bearer b', 'X-Device': 'ü' }),
        await send({ authorization: 'Bearer b' }),
      ]
    })
    assert.deepEqual(statuses, [200, 200, 200])
    const binding = (value) => sha256(Buffer.from(value, 'latin1'))
    const sent = stub.forms().map((form) => new URLSearchParams(form).get('payload'))
    assert.equal(new Set(tokensSeen()).size, 3)
    assert.deepEqual(sent, [binding('Bearer aü'), binding('Bearer bü'), null])
  })

  test('the scheme dpop: Authorization, and no nonce until the API gives one', async () => {
    assert.equal(await run(() => statusOf(make({ scheme: 'dpop' })(`${api}/`))), 200)
    const [{ headers }] = backend.seen()
    assert.match(headers.authorization, /^DPoP token\./)
    assert.equal(headers['approov-token'], undefined)
    assert.equal('nonce' in claimsOf(headers.dpop), false)
  })

  for (const [name, init, scheme] of /** @type {[string, any, string?][]} */ ([
    ['approov-token', { 'approov-token': 'x' }],
    ['DPoP', { DPOP: 'x' }],
    ['Authorization', { authorization: 'Basic x' }, 'dpop'],
  ])) {
    test(`a request that has ${name} already is refused`, async () => {
      const refused = await run((headers, scheme) => statusOf(make({ scheme })(`${api}/`, { headers })), init, scheme)
      assert.equal(refused, 'ApproovError invalid-argument')
      assert.equal(backend.seen().length, 0)
    })
  }

  test('body none: no msgs', async () => {
    assert.equal(await run(() => statusOf(make({ body: 'none' })(`${api}/`, { method: 'POST', body: 'large' }))), 200)
    assert.equal('msgs' in claimsOf(backend.seen()[0].headers.dpop), false)
  })

  test('headers() are those of a request that something else sends; for other origins none', async () => {
    const [sent, other] = await run(async () => {
      const apiFetch = make()
      const headers = await apiFetch.headers('PUT', `${api}/up?load=1`, { body: 'text', nonce: 'given' })
      const request = new XMLHttpRequest()
      request.open('PUT', `${api}/up?load=1`)
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value)
      await new Promise((resolve) => {
        request.onloadend = resolve
        request.send('text')
      })
      return [request.status, await apiFetch.headers('GET', 'https://other.example/')]
    })
    assert.equal(sent, 200)
    assert.deepEqual(other, {})
    const claims = claimsOf(backend.seen()[0].headers.dpop)
    assert.equal(claims.msgs, sha256('text'))
    assert.equal(claims.htq, sha256('load=1'))
    assert.deepEqual([claims.htm, claims.nonce], ['PUT', 'given'])
  })

  test('fetch is looked up at each call, or is the one that was given', async () => {
    const seen = await run(async () => {
      const apiFetch = make()
      await apiFetch(`${api}/`)
      const calls = []
      const own = globalThis.fetch
      globalThis.fetch = (...args) => {
        calls.push(args[0].headers.has('dpop'))
        return Reflect.apply(own, undefined, args)
      }
      await apiFetch(`${api}/`)
      globalThis.fetch = own
      const given = make({ fetch: async (request) => new Response(request.headers.get('approov-token')) })
      return [calls, await (await given(`${api}/`)).text()]
    })
    assert.deepEqual(seen[0], [true])
    assert.match(seen[1], /^token\./)
    assert.equal(backend.seen().length, 2)
  })

  test('an abort while the check runs rejects with its reason, and leaves the renewal running', async () => {
    const outcomes = await run(async () => {
      const controller = new AbortController()
      const apiFetch = make({
        renew: () => new Promise((resolve) => (globalThis.solve = () => resolve({ recaptchaToken: 'r' }))),
      })
      const first = apiFetch(`${api}/1`, { signal: controller.signal }).catch((reason) => reason)
      const second = statusOf(apiFetch(`${api}/2`))
      while (!globalThis.solve) await new Promise((resolve) => setTimeout(resolve))
      controller.abort('gave up')
      const reason = await first
      solve()
      return [reason, await second]
    })
    assert.deepEqual(outcomes, ['gave up', 200])
    assert.deepEqual(
      backend.seen().map(({ url }) => url),
      ['/2'],
    )
  })

  test('an abort while the token is fetched rejects with its reason', async () => {
    stub.hold()
    await run(() => {
      const controller = new AbortController()
      globalThis.abort = () => controller.abort(new RangeError('gave up'))
      globalThis.call = make()(`${api}/`, { signal: controller.signal }).catch((error) => error.name)
    })
    await stub.received(1)
    assert.equal(
      await run(() => {
        globalThis.abort()
        return call
      }),
      'RangeError',
    )
  })

  test('a service that is not reached: the call rejects with ApproovFetchError', async () => {
    stub.reply((response) => response.socket.destroy())
    await run(() => void (globalThis.call = statusOf(make()(`${api}/`))))
    await run(() => clock.timer(100, 400))
    await advance(400)
    assert.equal(await run(() => call), 'ApproovFetchError network')
    assert.equal(backend.seen().length, 0)
  })

  test('changing the options after createFetch has no effect', async () => {
    const status = await run(async () => {
      const given = { origins: [api], session: { ...options }, renew: () => ({ recaptchaToken: 'r' }) }
      const apiFetch = Approov.createFetch(given)
      given.origins.length = 0
      given.session.approovHost = 'nowhere.example'
      given.renew = undefined
      return statusOf(apiFetch(`${api}/`))
    })
    assert.equal(status, 200)
    assert.equal(tokensSeen().filter(Boolean).length, 1)
  })

  test('a stream is sent once and not hashed, where the browser sends streams', async () => {
    backend.reply(() => challenge('use_dpop_nonce', { 'DPoP-Nonce': 'n' }))
    const [bare, ours] = await run(async () => {
      const init = () => ({ method: 'POST', duplex: 'half', body: new Blob(['stream']).stream() })
      const name = (promise) =>
        promise.then(
          ({ status }) => status,
          (error) => error.name,
        )
      const apiFetch = make()
      return [await name(fetch(`${api}/bare`, init())), await name(apiFetch(`${api}/ours`, init()))]
    })
    assert.equal(ours, bare)
    for (const { headers } of backend.seen().filter(({ url }) => url === '/ours')) {
      assert.equal('msgs' in claimsOf(headers.dpop), false)
    }
    assert.ok(backend.seen().filter(({ url }) => url === '/ours').length <= 1)
  })

  test('a method that renew calls on itself does not wait for itself for ever', async () => {
    await run(() => {
      const apiFetch = make({
        renew: async () => {
          globalThis.isRunning = true
          await apiFetch(`${api}/`)
          return { recaptchaToken: 'r' }
        },
      })
      globalThis.call = statusOf(apiFetch(`${api}/`))
    })
    await run(async () => {
      while (!globalThis.isRunning) await new Promise((resolve) => setTimeout(resolve))
    })
    await advance(120_000)
    assert.equal(await run(() => call), 'ApproovCheckError check-timeout')
  })
})
