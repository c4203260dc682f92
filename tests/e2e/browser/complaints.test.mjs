// What users of comparable packages have complained of, each under the name of the report, tried on this one.
import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'

import { claimsOf, createApi, sha256 } from '../harness/api.mjs'
import { describeWithStub, HOUR } from '../harness/stub.mjs'

describeWithStub('complaints of others', ({ stub, run, advance, sleep }) => {
  const backend = createApi()
  before(() => backend.start())
  after(() => backend.stop())
  beforeEach(async () => {
    backend.reply()
    await run(async (api) => {
      Object.assign(globalThis, { api, checks: await import('/package/checks.js') })
      let count = 0
      globalThis.make = (more = {}) =>
        Approov.createFetch({
          origins: [api],
          session: options,
          renew: () => ({ recaptchaToken: `r${(count += 1)}` }),
          ...more,
        })
      globalThis.statusOf = (promise) => outcome(promise.then(({ status }) => status))
      globalThis.codeOf = (promise) =>
        promise.then(
          () => 'passed',
          (error) => error.code ?? error.name,
        )
      /** A script of a check service, as a URL. */
      globalThis.scriptOf = (text) => `data:text/javascript,${encodeURIComponent(text)}`
    }, backend.url)
  })
  const demand = (nonce) => ({
    status: 401,
    headers: { 'WWW-Authenticate': 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce': nonce },
  })
  const nonces = () => backend.seen().map(({ headers }) => claimsOf(headers.dpop).nonce)

  // One fetch
  test('auth0-spa-js#1431, a nonce of one API is used for another: nonces are kept by origin', async () => {
    const other = createApi()
    await other.start()
    try {
      other.reply(() => ({ headers: { 'DPoP-Nonce': 'of-other' } }))
      backend.reply(() => ({ headers: { 'DPoP-Nonce': 'of-api' } }))
      await run(async (other) => {
        const apiFetch = make({ origins: [api, other] })
        for (const origin of [api, other, api, other]) await apiFetch(`${origin}/`)
      }, other.url)
      assert.equal(nonces()[1], 'of-api')
      assert.equal(claimsOf(other.seen()[1].headers.dpop).nonce, 'of-other')
    } finally {
      await other.stop()
    }
  })

  test('auth0-spa-js#1435, relative and odd URLs are put together wrongly: the proof is for the URL that is requested', async () => {
    await run(async () => {
      const apiFetch = make()
      for (const path of ['/a//b', '/a/../c', '/ü?q=ä', '/%7Ex', '/a;b=c,d', '']) await apiFetch(api + path)
    })
    for (const { url, headers } of backend.seen()) {
      const { htu, htq } = claimsOf(headers.dpop)
      const [path, query] = url.split('?')
      // WebKitGTK sends ~ for %7E; to a verifier they are the same (RFC 3986, section 6.2.2.2).
      const normal = (text) => text.replaceAll('%7E', '~')
      assert.deepEqual([normal(htu), htq], [normal(backend.url + path), query && sha256(query)])
    }
  })

  test('auth0-spa-js#1442, Bearer and DPoP are mixed: one scheme, and the header of the app is not overwritten', async () => {
    const headers = { authorization: 'Bearer of-the-app' }
    await run((headers) => make()(`${api}/`, { headers }), headers)
    assert.equal(backend.seen()[0].headers.authorization, 'Bearer of-the-app')
    assert.equal(
      await run((headers) => statusOf(make({ scheme: 'dpop' })(`${api}/`, { headers })), headers),
      'ApproovError invalid-argument',
    )
  })

  test('a2a-js#735 and fetch-retry#99, a Request is used up, or empty, at the second try: both have the same body', async () => {
    backend.reply((request, count) => (count === 1 ? demand('n') : {}))
    const status = await run(() => statusOf(make()(new Request(`${api}/`, { method: 'POST', body: 'text' }))))
    assert.equal(status, 200)
    assert.deepEqual(
      backend.seen().map(({ hash }) => hash),
      [sha256('text'), sha256('text')],
    )
  })

  test('web-sdk#939, no retry while an old nonce is cached: there is one', async () => {
    backend.reply(({ headers }, count) => {
      if (count === 1) return { headers: { 'DPoP-Nonce': 'old' } }
      return claimsOf(headers.dpop).nonce === 'new' ? {} : demand('new')
    })
    const statuses = await run(async () => {
      const apiFetch = make()
      return [await statusOf(apiFetch(`${api}/`)), await statusOf(apiFetch(`${api}/`))]
    })
    assert.deepEqual(statuses, [200, 200])
    assert.deepEqual(nonces().slice(1), ['old', 'new'])
  })

  test('atproto#3852, the nonce that comes with the retry is lost: it is the next', async () => {
    backend.reply((request, count) => (count === 1 ? demand('first') : { headers: { 'DPoP-Nonce': `after-${count}` } }))
    await run(async () => {
      const apiFetch = make()
      await apiFetch(`${api}/`)
      await apiFetch(`${api}/`)
    })
    assert.deepEqual(nonces().slice(1), ['first', 'after-2'])
  })

  test('auth0-spa-js hides the 401 behind an error of its own: the response is returned', async () => {
    backend.reply(() => ({ ...demand('same'), body: 'why' }))
    assert.deepEqual(
      await run(async () => {
        const response = await make()(`${api}/`)
        return [response.status, await response.text()]
      }),
      [401, 'why'],
    )
  })

  test('firebase-js-sdk#6278, refused for ever in a loop: a few requests, and no check for five minutes', async () => {
    backend.reply(() => ({ status: 401, headers: { 'WWW-Authenticate': 'DPoP error="invalid_token"' } }))
    await run(async () => {
      const apiFetch = make()
      for (let call = 0; call < 10; call++) await apiFetch(`${api}/`)
    })
    assert.equal(stub.forms().filter((form) => form.includes('recaptcha-token')).length, 2)
    assert.ok(backend.seen().length <= 14, `${backend.seen().length}`)
  })

  // Events
  test('treetracker-wallet-app#890, a handler that is set after the start never fires: it is told', async () => {
    const told = await run(async () => {
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
      return new Promise((resolve) => Approov.on('session', ({ type }) => resolve(type)))
    })
    assert.equal(told, 'session')
  })

  test('supabase-js#2344, a listener that calls the SDK during its start hangs it: it does not', async () => {
    const token = await run(async () => {
      const inside = new Promise((resolve) => Approov.on('session', () => resolve(Approov.fetchToken('other'))))
      void Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
      return inside
    })
    assert.match(token, /^token\./)
  })

  test('authkit-nextjs#289, stale for a minute after the computer wakes: judged by the clocks at the next call', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    await sleep(119_000, { isTicking: true })
    await run(() => apiFetch(`${api}/`))
    const [first, second] = backend.seen().map(({ headers }) => headers['approov-token'])
    assert.notEqual(first, second)
  })

  // Check adapters
  test('react-recaptcha-hook#9 and recaptcha#269, a promise that never settles: it ends with check-timeout', async () => {
    await run(() => {
      const url = scriptOf(
        'globalThis.grecaptcha = { ready: (f) => f(), render: () => 0, execute: () => new Promise(() => {}), reset() {} }',
      )
      globalThis.call = codeOf(checks.recaptcha({ action: 'a', siteKey: 'k', url })({}))
    })
    await run(async () => {
      while (!globalThis.grecaptcha) await new Promise((resolve) => setTimeout(resolve))
    })
    for (let turn = 0; turn < 3; turn++) await advance(10_000)
    assert.equal(await run(() => call), 'check-timeout')
  })

  test('react-hcaptcha#75, the script is loaded twice: once, however many run', async () => {
    const loads = await run(async () => {
      const url = scriptOf(
        `globalThis.loads = (globalThis.loads ?? 0) + 1
        const made = []
        globalThis.hcaptcha = {
          render: (element, { callback }) => made.push(callback) - 1,
          execute: (id) => made[id]('x'),
          getRespKey: () => 'key',
          remove() {},
        }`,
      )
      const run = () => checks.hcaptcha({ siteKey: 'k', url })({})
      await Promise.all([run(), run(), run()])
      await run()
      return globalThis.loads
    })
    assert.equal(loads, 1)
  })

  test('fingerprintjs-pro-spa#31, a load that failed is remembered: the next one is tried', async () => {
    const codes = await run(async () => {
      const check = checks.fingerprint({ siteKey: 'k', url: '/not-there.js' })
      const first = await codeOf(check({}))
      const there = scriptOf('export const start = () => ({ get: async () => ({ event_id: "e" }) })')
      return [first, await codeOf(check({})), await codeOf(checks.fingerprint({ siteKey: 'k', url: there })({}))]
    })
    assert.deepEqual(codes, ['check-blocked', 'check-blocked', 'passed'])
  })

  test('misskey#8133, hCaptcha takes the place of grecaptcha: its script is told not to', async () => {
    const src = await run(async () => {
      globalThis.call = codeOf(checks.hcaptcha({ siteKey: 'k' })({ signal: AbortSignal.timeout(200) }))
      await new Promise((resolve) => setTimeout(resolve))
      const { src } = /** @type {any} */ (document.querySelector('script[src*=hcaptcha]'))
      await call
      return src
    })
    assert.match(src, /recaptchacompat=off/)
  })

  test('ng-recaptcha#100, no nonce of the content security policy: the script has that of the page', async () => {
    const nonce = await run(async () => {
      const own = document.createElement('script')
      own.setAttribute('nonce', 'abc')
      document.head.append(own)
      void codeOf(checks.turnstile({ siteKey: 'k', url: scriptOf('') })({ signal: AbortSignal.timeout(100) }))
      await new Promise((resolve) => setTimeout(resolve))
      return document.querySelector('script[src^=data]').nonce
    })
    assert.equal(nonce, 'abc')
  })

  test('reCAPTCHA#4, a result older than two minutes at submit: the check runs when its result is needed', async () => {
    const ages = await run(async () => {
      let solved
      const apiFetch = make({
        renew: () => {
          solved = Date.now()
          return { recaptchaToken: 'r' }
        },
      })
      const made = Date.now()
      await clock.advance(600_000)
      await apiFetch(`${api}/`)
      return [solved - made >= 600_000, Date.now() - solved < 120_000]
    })
    assert.deepEqual(ages, [true, true])
  })

  // Reload and several tabs
  test('supabase-js#2013, an orphaned lock freezes the app: there are no locks', async () => {
    const status = await run(async () => {
      await navigator.locks?.request('approov-web-sdk', { steal: true }, async () => {})
      navigator.locks?.request('approov-web-sdk', () => new Promise(() => {}))
      return statusOf(make({ session: { ...options, persistence: 'browser' } })(`${api}/`))
    })
    assert.equal(status, 200)
  })

  test('auth0-spa-js, concurrent first calls make two keys: one key for all', async () => {
    const keys = await run(async () => {
      const apiFetch = make()
      const sent = await Promise.all([1, 2, 3, 4].map((n) => apiFetch.headers('GET', `${api}/${n}`)))
      const keyOf = ({ DPoP }) => JSON.parse(atob(DPoP.split('.')[0].replaceAll('-', '+').replaceAll('_', '/'))).jwk.x
      return new Set(sent.map(keyOf)).size
    })
    assert.equal(keys, 1)
  })

  test('auth0-spa-js#1596, tokens survive the logout: the next call needs a new session', async () => {
    const [first, second] = await run(async () => {
      const apiFetch = make()
      const first = (await apiFetch.headers('GET', `${api}/`))['Approov-Token']
      await Approov.endSession()
      return [first, (await apiFetch.headers('GET', `${api}/`))['Approov-Token']]
    })
    assert.notEqual(first, second)
    assert.equal(stub.forms().filter((form) => form.includes('recaptcha-token')).length, 2)
  })

  // Places, hosts
  test('firebase-js-sdk#6645, "document is not defined" in a worker: tokens without a document', async () => {
    const kind = await run(async () => {
      const source = `
        import { Approov } from ${JSON.stringify(new URL('/package/index.js', location.href).href)}
        const options = ${JSON.stringify(options)}
        await Approov.initializeSession(options)
        postMessage(typeof document + ' ' + (await Approov.fetchToken('api', { recaptchaToken: 'r' })).split('.')[0])`
      const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), {
        type: 'module',
      })
      return new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)))
    })
    assert.equal(kind, 'undefined token')
  })

  test('fingerprintjs#1120, one host is blocked: the session begins at the other', async () => {
    const [status, hosts] = await run(async () => {
      const hosts = ['http://127.0.0.1:9', options.approovHost]
      const apiFetch = make({ session: { ...options, approovHost: hosts } })
      return [await statusOf(apiFetch(`${api}/`)), hosts.length]
    })
    assert.deepEqual([status, hosts], [200, 2])
    assert.equal(stub.forms().length, 1)
  })

  test('sentry-javascript#6077, headers that a wrapper of fetch adds fail the preflight: /attest does not go through it', async () => {
    const seen = await run(async () => {
      const own = globalThis.fetch
      const seen = []
      globalThis.fetch = (input, init) => {
        seen.push(String(input.url ?? input))
        return Reflect.apply(own, globalThis, [input, init])
      }
      const status = await statusOf(make()(`${api}/`))
      globalThis.fetch = own
      return [status, seen]
    })
    assert.deepEqual(seen, [200, [`${backend.url}/`]])
  })

  test('an hour in another tab: nothing is requested, and the next call has a fresh token', async () => {
    await run(async () => {
      globalThis.apiFetch = make()
      await apiFetch(`${api}/`)
    })
    const before = stub.requests().length
    await advance(HOUR)
    assert.equal(stub.requests().length, before)
    assert.equal(await run(() => statusOf(apiFetch(`${api}/`))), 200)
  })
})
