// For tests of apps: the SDK's face without service, WebAssembly and network, under the same names, and help for tests in browsers.
import {
  ApproovCheckError,
  ApproovError,
  ApproovFetchError,
  ApproovServiceError,
  ApproovSessionError,
  invalid,
} from './errors.js'

export { ApproovCheckError, ApproovError, ApproovFetchError, ApproovServiceError, ApproovSessionError }

const RESULTS = [
  'fingerprintIDResult',
  'hcaptchaToken',
  'recaptchaToken',
  'turnstileToken',
  'friendlyCaptchaResponse',
  'altchaPayload',
]
const LIFETIME = 7_200_000
const EVENTS = ['session', 'sessionexpiring', 'sessionend', 'tokenrefresh', 'error', 'log']

let calls = []
let failures = []
let listeners = []
/** Whether there is a session, and when it ends once it has a token. @type {{ options: any, expires?: number } | undefined} */
let session
let lastOptions

const base64url = (text) =>
  btoa(String.fromCharCode(...new TextEncoder().encode(text)))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replace(/=+$/, '')

function emit(type, members) {
  const event = Object.freeze({ type, ...members })
  for (const entry of listeners.filter((entry) => entry.type === type)) {
    queueMicrotask(() => listeners.includes(entry) && entry.listener(event))
  }
}

/** Notes a call, and throws what the test wants it to fail with. */
function note(name, args) {
  calls.push({ name, args })
  const at = failures.findIndex((failure) => failure.name === name)
  if (at >= 0) throw failures.splice(at, 1)[0].error
}

function needsSession() {
  if (!session) {
    throw new ApproovSessionError('there is no Approov session: call initializeSession first', {
      code: 'not-initialized',
    })
  }
  return session
}

async function fetchToken(api, options) {
  if (typeof api !== 'string' || !api) throw invalid('"api" must be the domain of an API')
  const current = needsSession()
  const given = { __proto__: null, ...options }
  const isSelfPassed = Object.keys(current.options).filter((name) => /Key$/.test(name) && name !== 'approovSiteKey')
  if (
    current.expires === undefined &&
    !RESULTS.some((name) => given[name] != null) &&
    String(isSelfPassed) !== 'altchaSiteKey'
  ) {
    throw new ApproovSessionError('the first token of a session needs the result of a check', {
      code: 'results-required',
    })
  }
  if (current.expires === undefined) {
    current.expires = Date.now() + LIFETIME
    emit('session', { expires: current.expires })
  }
  return `fake.${base64url(JSON.stringify({ api }))}.token`
}

function proof(method, uri, nonce, token, messageSignature) {
  if (typeof method !== 'string' || !method) throw invalid('"method" must be an HTTP method')
  const { origin, pathname } = new URL(uri)
  const claims = {
    htm: method,
    htu: `${origin}${pathname}`,
    ...(nonce && { nonce }),
    ...(token && { ath: 'fake' }),
    ...(messageSignature && { msgs: messageSignature }),
  }
  return `${base64url('{"typ":"dpop+jwt","alg":"none"}')}.${base64url(JSON.stringify(claims))}.fake`
}

async function begin(options) {
  lastOptions = options && Object.keys(options).length ? { ...options } : lastOptions
  if (!lastOptions) throw invalid('"approovHost", "approovSiteKey" and the key of a check service are missing')
  if (session?.expires !== undefined) emit('sessionend', { code: 'replaced' })
  session = { options: lastOptions }
}

function createFetch(options) {
  note('createFetch', [options])
  const origins = options?.origins
  if (!Array.isArray(origins) || !origins.length) throw invalid('"origins" must be a list of at least one origin')
  const known = origins.map((origin) => new URL(origin).origin)
  let renewal
  const renew = async (reason) => {
    await begin(options.session)
    const keys = session.options
    const result = (await options.renew?.({ signal: new AbortController().signal, reason, keys })) ?? {}
    await fetchToken(options.api ?? new URL(known[0]).hostname, result)
  }
  const headers = async (method, url) => {
    if (!known.includes(new URL(url).origin)) return {}
    const api = options.api ?? new URL(url).hostname
    if (session?.expires === undefined) await (renewal ??= renew('start').finally(() => (renewal = undefined)))
    const token = await fetchToken(api)
    const name = options.scheme === 'dpop' ? 'Authorization' : 'Approov-Token'
    return { [name]: options.scheme === 'dpop' ? `DPoP ${token}` : token, DPoP: proof(method, url, 'fake', token) }
  }
  const apiFetch = async (input, init) => {
    note('fetch', [input, init])
    const request = new Request(input, init)
    for (const [name, value] of Object.entries(await headers(request.method, request.url))) {
      request.headers.set(name, value)
    }
    return (options.fetch ?? globalThis.fetch)(request)
  }
  apiFetch.headers = async (method, url) => headers(method, url)
  apiFetch.renew = () => renew('ahead')
  return Object.freeze(apiFetch)
}

/** The SDK's functions, without a service: sessions, tokens and proofs are made up, and mean nothing to a backend. */
export const Approov = Object.freeze({
  async initializeSession(options) {
    note('initializeSession', [options])
    await begin(options)
  },
  async fetchToken(api, options) {
    note('fetchToken', [api, options])
    return fetchToken(api, options)
  },
  async getDPoPToken(...args) {
    note('getDPoPToken', args)
    needsSession()
    return proof(...args)
  },
  async messageSignature(message) {
    note('messageSignature', [message])
    needsSession()
    return new ArrayBuffer(64)
  },
  async getExpiries() {
    note('getExpiries', [])
    const { expires } = needsSession()
    return expires === undefined ? {} : { session: expires }
  },
  createFetch,
  on(type, listener, options) {
    if (!EVENTS.includes(type)) throw invalid(`"type" must be one of ${EVENTS.join(', ')}`)
    if (typeof listener !== 'function') throw invalid('"listener" must be a function')
    const entry = { type, listener }
    const remove = () => {
      listeners = listeners.filter((other) => other !== entry)
    }
    if (options?.signal?.aborted) return remove
    options?.signal?.addEventListener('abort', remove)
    listeners.push(entry)
    if (type === 'session' && session?.expires !== undefined) emit('session', { expires: session.expires })
    return remove
  },
  async endSession() {
    note('endSession', [])
    if (session?.expires !== undefined) emit('sessionend', { code: 'ended' })
    session = undefined
  },
})

/** What a test does with the fake SDK. */
export const fake = Object.freeze({
  /** The calls since the last reset. */
  get calls() {
    return [...calls]
  },
  /** Lets the next call of a function fail. */
  fail(name, error) {
    failures.push({ name, error })
  },
  /** Ends the session as time does. */
  expire() {
    if (session?.expires !== undefined) emit('sessionend', { code: 'session-expired' })
    session = undefined
  },
  /** Calls the listeners of an event. */
  emit(type, members) {
    emit(type, members)
  },
  /** As at the start: no session, no calls, no listeners. */
  reset() {
    calls = []
    failures = []
    listeners = []
    session = lastOptions = undefined
  },
})

/** The hosts of the check services' scripts. */
const SCRIPTS =
  /^https:\/\/([\w.-]+\.)?(hcaptcha\.com|google\.com\/recaptcha|recaptcha\.net|gstatic\.com\/recaptcha|challenges\.cloudflare\.com|fpjscdn\.net|fpnpmcdn\.net|cdn\.jsdelivr\.net\/npm\/@friendlycaptcha)\b|\/sim\/(hcaptcha|recaptcha|turnstile|friendly|fingerprint)\//

/** For Playwright: how the simulated checks of a service for development end in a page, before it is opened. */
export async function installApproov(page, options) {
  const outcome = options?.outcome ?? 'pass'
  if (typeof outcome !== 'string' || !outcome)
    throw invalid('"outcome" must be a text such as "pass", "fail" or "blocked"')
  if (outcome === 'blocked') {
    await page.route(SCRIPTS, (route) => route.abort('blockedbyclient'))
    return
  }
  await page.addInitScript((outcome) => {
    globalThis.approovSim = { outcome }
  }, outcome)
}
