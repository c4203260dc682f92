// `Approov.createFetch`: a `fetch` that adds token and proof to the requests for some origins, and leaves all others alone.
//
//   request ─▶ not ours: fetch(input, init)
//           └▶ ours: token and proof ─▶ send ─┬─ any response but a refusal of ours ─▶ returned
//                      ▲    │                 └─ 401 with a DPoP challenge: once for each kind of remedy, with a fresh proof
//                      │    └ no session: renewal, which all requests of the page share
//                      └──────────────────────────────────────────────────────────────
import { builtIns, base64url, digest, isA, ownProperty } from './built-ins.js'
import { ApproovCheckError, ApproovError, ApproovSessionError, invalid, readable } from './errors.js'

/** How often one request is sent. */
const MAX_SENDS = 4
/** How long a check may take, in milliseconds. */
const CHECK_TIMEOUT = 120_000
/** So long after a renewal that a refusal caused, in milliseconds, no other refusal causes one, unless tokens have served meanwhile. */
const REFUSED_RENEWAL_INTERVAL = 300_000

const TOKEN_HEADER = 'Approov-Token'
const LOOPBACK = /^(localhost|.+\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/
/** A header's name (RFC 9110, section 5.1). */
const TOKEN = /^[!#$%&'*+\-.^_`|~\w]+$/

/**
 * @param {{
 *   call: (name: string, args: any[], finish?: (value: any) => Promise<any>) => Promise<any>,
 *   renew: (session: any, api: string, check: () => Promise<any>, mayContinue: boolean) => Promise<void>,
 *   refuse: (token: string) => boolean,
 *   configuration: any,
 *   emit: (type: string, members: object) => void,
 * }} sdk the instance of the WebAssembly that runs, and the options of the session that was begun last
 */
export function makeCreateFetch(sdk) {
  /** The renewal that runs: one per page. It tells whether it has run a check. @type {Promise<boolean> | undefined} */
  let renewal
  /** Stops it. @type {AbortController | undefined} */
  let stopping
  /** How often the session was ended. */
  let ends = 0
  /** How many sessions were begun here. */
  let renewals = 0
  /** When a refusal last caused a renewal, until tokens have served again. */
  let renewedFor
  /** The origins whose 401 has shown no challenge. */
  const mute = new Set()
  const log = (message) => sdk.emit('log', { message })
  /** The latest nonce of each origin. @type {Map<string, string>} */
  const nonces = new Map()

  /** Begins a session, or another beside the one that runs. Whoever needs one while it is on its way gets the same. */
  function renewSession(options, api, reason, payload) {
    if (renewal) return renewal
    const controller = new AbortController()
    const running = renewOnce(options, api, reason, payload, controller).finally(() => {
      if (renewal === running) renewal = undefined
    })
    stopping = controller
    renewal = running
    return running
  }

  async function renewOnce({ session, renew }, api, reason, payload, controller) {
    const configuration = session ?? sdk.configuration
    if (configuration.approovHost === undefined && configuration.approovSiteKey === undefined) {
      throw new ApproovSessionError(
        'there is no Approov session: give createFetch the option "session", or call initializeSession first',
        { code: 'not-initialized' },
      )
    }
    log(`a session is begun, with a check: ${reason}`)
    const { signal } = controller
    const late = new ApproovCheckError(`"renew" did not pass the check within ${CHECK_TIMEOUT / 1000} s`, {
      code: 'check-timeout',
      retryable: true,
      check: 'renew',
    })
    const timer = setTimeout(() => controller.abort(late), CHECK_TIMEOUT)
    const keys = { __proto__: null }
    for (const name of Object.keys(configuration)) {
      if (isCheckKey(name) && configuration[name] != null) keys[name] = configuration[name]
    }
    const context = Object.freeze({ signal, reason, keys: Object.freeze({ ...keys }) })
    /** What the check failed with, if that is what ended the renewal. */
    let failure
    let isChecked = false
    const check = async () => {
      isChecked = true
      try {
        signal.throwIfAborted()
        const result = await abortable(renew ? renew(context) : {}, signal)
        // The first token is bound to what the first request has, so that one request to the service is enough.
        return payload ? { ...result, payload } : (result ?? {})
      } catch (error) {
        failure = { error }
        throw error
      } finally {
        clearTimeout(timer)
      }
    }
    try {
      await sdk.renew(session, api, check, reason !== 'ahead')
      renewals += 1
      return isChecked
    } catch (error) {
      throw failure ? failure.error : error
    } finally {
      clearTimeout(timer)
    }
  }

  /** Token and proof, of the session there is or of one that is begun now. */
  async function authorize(options, request, reason) {
    const { api, payload, method, url, nonce, hash, signal } = request
    const ask = () => sdk.call('authorize', [api, { payload, signal }, method, url, nonce, hash], authorization)
    const before = ends
    for (let isChecked = false; ;) {
      try {
        return await ask()
      } catch (error) {
        // A session that another page has kept may turn out to be over.
        if (!(error instanceof ApproovSessionError) || isChecked || ends !== before) throw error
        const begins = error.code === 'not-initialized' || error.code === 'results-required'
        isChecked = await abortable(
          renewSession(options, api, reason ?? (begins ? 'start' : 'expired'), payload),
          signal,
        )
      }
    }
  }

  /** The nonce for an API's next proof. Until it has given one: random bits, which the scheme `approov` wants. */
  function nonceFor(origin, scheme) {
    return (
      nonces.get(origin) ?? (scheme === 'dpop' ? undefined : base64url(builtIns.getRandomValues(new Uint8Array(16))))
    )
  }

  /** What can be done about a refusal: nothing, or what has to be done before the request is sent again. */
  function remedyOf(response, sent, done, options) {
    const shown = readHeader(response, 'www-authenticate')
    const challenge = response.status === 401 && dpopChallenge(shown)
    if (response.status === 401 && !shown && !mute.has(sent.origin)) {
      mute.add(sent.origin)
      log(
        `${sent.origin} responded with 401 and shows no WWW-Authenticate: for refusals of Approov's, it has to send the header, and Access-Control-Expose-Headers: WWW-Authenticate, DPoP-Nonce`,
      )
    }
    if (!challenge?.error) {
      // Whatever the app itself makes of the request: token and proof were good enough.
      if (response.status < 500 && isReadable(response)) renewedFor = undefined
      return
    }
    const { error } = challenge
    log(`${sent.url} responded with 401 ${error}`)
    if (error === 'invalid_dpop_proof' || (error === 'use_dpop_nonce' && nonces.get(sent.origin) !== sent.nonce)) {
      if (done.has('signed')) return
      done.add('signed')
      return {}
    }
    if (error !== 'invalid_token') return
    if (!done.has('refreshed')) {
      done.add('refreshed')
      if (sdk.refuse(sent.token)) return {}
    }
    if (done.has('renewed')) return
    // What another call has begun is for this one, too: its token is of the session before.
    const running = renewal
    if (running || sent.renewals !== renewals) {
      done.add('renewed')
      return running ? { prepare: () => running } : {}
    }
    if (renewedFor !== undefined && performance.now() - renewedFor < REFUSED_RENEWAL_INTERVAL) return
    done.add('renewed')
    return {
      async prepare() {
        renewedFor = performance.now()
        await renewSession(options, sent.api, 'refused', sent.payload)
      },
    }
  }

  async function send(options, args) {
    const [, init] = args
    const wanted = args.length ? ours(options, args[0], init) : undefined
    const send = options.fetch ?? globalThis.fetch
    if (!wanted) return send(...args)
    const { origin, url, input } = wanted
    const given = new Request(input, init)
    // An object that only says that it is a Request is another URL to whoever sends it.
    if (given.url !== url) throw invalid('the request must be a Request, a URL or a string')
    const before = ends
    // The caller's own: one that only follows it may be collected before it hears of the abort (WebKit).
    const own = init?.signal === undefined && isA(input, 'Request') ? input.signal : init?.signal
    const signal = own ?? given.signal
    signal.throwIfAborted()
    for (const name of [TOKEN_HEADER, 'DPoP', ...(options.scheme === 'dpop' ? ['Authorization'] : [])]) {
      if (given.headers.has(name)) throw invalid(`the request has a header ${name} already, which createFetch adds`)
    }
    const isStream = isA(init?.body, 'ReadableStream')
    // A redirect would take the token to wherever it leads, and the proof is for one URL.
    /** @type {RequestInit} */
    const sent = { redirect: 'manual', referrer: given.referrer, referrerPolicy: given.referrerPolicy }
    let request = new Request(given, sent)
    let hash
    // Not every browser says whether a request has a body.
    if (options.body === 'hash' && !isStream && !/^(GET|HEAD)$/.test(request.method)) {
      try {
        hash = await hashOf(request.clone(), signal)
      } catch (error) {
        // WebKit cannot read a form with files.
        if (signal.aborted || !isA(init?.body, 'FormData')) throw error
        const body = await abortable(multipart(init.body), signal)
        const headers = new Headers(given.headers)
        if (/^multipart\/form-data/.test(headers.get('content-type'))) headers.set('content-type', body.type)
        request = new Request(given, { ...sent, headers, body })
        hash = await hashOf(body, signal)
      }
    }
    const about = {
      origin,
      api: options.api ?? new URL(url).hostname,
      payload: payloadOf(options.bind, given.headers),
      method: request.method,
      url,
      hash,
      signal,
    }
    const done = new Set()
    let refused
    for (let left = isStream ? 1 : MAX_SENDS; ;) {
      const nonce = nonceFor(origin, options.scheme)
      try {
        const authorized = await authorize(options, { ...about, nonce })
        const tried = { ...about, nonce, token: authorized.token, renewals }
        left -= 1
        const copy = left ? request.clone() : request
        setHeaders(copy.headers, options.scheme, authorized)
        // The last response is of no use to anybody any more.
        refused?.body?.cancel().catch(() => {})
        refused = undefined
        // A copy does not always hear of the abort (WebKit).
        const response = await abortable(send(copy), signal)
        const next = readHeader(response, 'dpop-nonce')
        // What was forgotten at the end of the session stays so.
        if (next && ends === before) nonces.set(origin, next)
        if (isRedirect(response, given.redirect)) {
          response.body?.cancel().catch(() => {})
          throw new ApproovError(
            `${url} responded with a redirect, which a request with a token does not follow: call the URL it leads to`,
            { code: 'redirected' },
          )
        }
        const remedy = left ? remedyOf(response, tried, done, options) : undefined
        if (!remedy) return response
        refused = response
        if (remedy.prepare) await abortable(remedy.prepare(), signal)
      } catch (error) {
        signal.throwIfAborted()
        if (!refused) throw error
        // The app gets the refusal itself where nothing could be done about it.
        sdk.emit('error', { error })
        return refused
      }
    }
  }

  /** The request headers that are added. */
  async function headers(options, method, url, more) {
    /** @type {any} */
    const { body, headers: values, nonce, signal } = { __proto__: null, ...more }
    const wanted = ours(options, url, undefined)
    if (!wanted) return {}
    signal?.throwIfAborted()
    const { href, origin, hostname } = new URL(wanted.url)
    const hash = options.body === 'none' || body == null ? undefined : await hashOf(new Response(body), signal)
    const about = {
      origin,
      api: options.api ?? hostname,
      payload: payloadOf(options.bind, new Headers(values ?? undefined)),
      method: sentMethod(method),
      url: href,
      nonce: nonce ?? nonceFor(origin, options.scheme),
      hash,
      signal,
    }
    const authorized = await authorize(options, about).catch((error) => {
      signal?.throwIfAborted()
      throw error
    })
    const added = new Headers()
    setHeaders(added, options.scheme, authorized)
    const name = options.scheme === 'dpop' ? 'Authorization' : TOKEN_HEADER
    return { [name]: added.get(name), DPoP: added.get('DPoP') }
  }

  function createFetch(given) {
    const options = readable(() => readOptions(given), 'the options of createFetch could not be read')
    const apiFetch = async (...args) => send(options, args)
    apiFetch.headers = async (method, url, more) => headers(options, method, url, more)
    apiFetch.renew = async () => {
      const api = options.api ?? new URL(options.origins[0]).hostname
      await renewSession(options, api, 'ahead')
    }
    return Object.freeze(apiFetch)
  }

  /** Ends what runs, and forgets the nonces. @param {Error} error */
  createFetch.end = (error) => {
    ends += 1
    nonces.clear()
    renewedFor = undefined
    renewal = undefined
    stopping?.abort(error)
  }
  createFetch.renewSession = renewSession
  return createFetch
}

/** Whether an option of a session is the key of a check service. */
export const isCheckKey = (name) => /Key$/.test(name) && name !== 'approovSiteKey'

/** The resolved URL of a request that gets token and proof, and its origin. */
function ours(options, given, init) {
  let input, url
  try {
    // Read once: what is judged is what is sent.
    input = isA(given, 'Request') ? given : `${given}`
    url = (typeof input === 'string' ? new Request(input) : input).url
  } catch {
    // What fetch itself refuses.
    return
  }
  const mode = init?.mode ?? (isA(input, 'Request') ? input.mode : undefined)
  if (mode === 'no-cors' || mode === 'navigate') return
  const { origin, protocol } = new URL(url)
  // The origin of a blob's URL is the page's.
  if (!/^https?:$/.test(protocol)) return
  return options.origins.includes(origin) ? { url, origin, input } : undefined
}

/** A method as `fetch` and XMLHttpRequest send it: these, and no others, in capitals whatever they are given as. */
const sentMethod = (method) => (/^(delete|get|head|options|post|put)$/i.test(method) ? method.toUpperCase() : method)

/** The options, checked and copied. */
function readOptions(given) {
  if (given === null || typeof given !== 'object')
    throw invalid('createFetch needs an object with the option "origins"')
  const option = (name) => ownProperty(given, name) ?? undefined
  const origins = option('origins')
  if (!Array.isArray(origins) || !origins.length) {
    throw invalid('"origins" must be a list of at least one origin, such as ["https://api.example.com"]')
  }
  const api = option('api')
  if (api !== undefined && (typeof api !== 'string' || !api)) throw invalid('"api" must be the domain of an API')
  const session = option('session')
  if (session !== undefined && typeof session !== 'object') {
    throw invalid('"session" must be an object with the options of initializeSession')
  }
  const functions = {}
  for (const name of ['renew', 'fetch']) {
    functions[name] = option(name)
    if (functions[name] !== undefined && typeof functions[name] !== 'function')
      throw invalid(`"${name}" must be a function`)
  }
  const choice = (name, choices) => {
    const value = option(name) ?? choices[0]
    if (!choices.includes(value)) throw invalid(`"${name}" must be ${choices.map((one) => `"${one}"`).join(' or ')}`)
    return value
  }
  const bind = option('bind') ?? []
  if (!Array.isArray(bind) || !bind.every((name) => typeof name === 'string' && TOKEN.test(name))) {
    throw invalid('"bind" must be a list of names of headers')
  }
  return Object.freeze({
    origins: origins.map(readOrigin),
    api,
    // Copied, so that changing the object later has no effect.
    session: session && Object.freeze({ ...session }),
    renew: functions.renew,
    fetch: functions.fetch,
    body: choice('body', ['hash', 'none']),
    scheme: choice('scheme', ['approov', 'dpop']),
    bind: [...bind],
  })
}

function readOrigin(text) {
  const shown = typeof text === 'string' ? `"${text}"` : typeof text
  let url
  try {
    url = typeof text === 'string' && !text.includes('*') ? new URL(text) : undefined
  } catch {
    // Reported below.
  }
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && LOOPBACK.test(url.hostname))
  // Nothing but an origin, with or without a slash at its end.
  if (!url || !isSafe || url.href !== `${url.origin}/` || /[?#]/.test(text)) {
    throw invalid(
      `"origins" must be origins such as "https://api.example.com" (http on this machine only), without path or query, got ${shown}`,
    )
  }
  return url.origin
}

/** The values of the headers that a token is bound to, as backends join them; nothing if one is missing. */
function payloadOf(bind, headers) {
  const values = bind.map((name) => headers.get(name))
  if (!bind.length || values.includes(null)) return undefined
  // Header values are bytes, one each character.
  return Uint8Array.from(values.join(''), (character) => character.charCodeAt(0))
}

/** What `msgs` says of a body: unpadded base64url of its SHA-256; nothing of an empty one. */
async function hashOf(message, signal) {
  const bytes = await abortable(message.arrayBuffer(), signal)
  return bytes.byteLength ? base64url(await digest(bytes)) : undefined
}

/** A form as the browser sends it (HTML, section 4.10.22.7), in a blob that has its media type. */
async function multipart(form) {
  // In lower case, as the type of a blob always is.
  const boundary = `----${base64url(builtIns.getRandomValues(new Uint8Array(24))).toLowerCase()}`
  const quoted = (text) => text.replace(/\r\n?|\n/g, '%0D%0A').replaceAll('"', '%22')
  const parts = []
  for (const [name, value] of form) {
    const isText = typeof value === 'string'
    const file = isText
      ? ''
      : `; filename="${quoted(value.name)}"\r\nContent-Type: ${value.type || 'application/octet-stream'}`
    parts.push(
      `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name)}"${file}\r\n\r\n`,
      isText ? value.replace(/\r\n?|\n/g, '\r\n') : await value.arrayBuffer(),
      '\r\n',
    )
  }
  return new Blob([...parts, `--${boundary}--\r\n`], { type: `multipart/form-data; boundary=${boundary}` })
}

function setHeaders(headers, scheme, { token, proof }) {
  if (scheme === 'dpop') headers.set('Authorization', `DPoP ${token}`)
  else headers.set(TOKEN_HEADER, token)
  headers.set('DPoP', proof)
}

/** What came of `authorize` in the WebAssembly. */
const authorization = ([input, signature, token]) =>
  signature.then((signature) => ({ token, proof: `${input}.${base64url(signature)}` }))

/** The promise, unless the signal is aborted before. @param {any} promise @param {AbortSignal} [signal] @returns {Promise<any>} */
function abortable(promise, signal) {
  if (!signal) return Promise.resolve(promise)
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    Promise.resolve(promise)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort))
  })
}

const isReadable = (response) => response.type !== 'opaque' && response.type !== 'opaqueredirect' && response.status > 0

/** Whether a response is a redirect that the app did not ask to see. */
const isRedirect = (response, redirect) =>
  redirect !== 'manual' && (response.type === 'opaqueredirect' || [301, 302, 303, 307, 308].includes(response.status))

/** A header of a response; a stand-in for `fetch` may give responses without any. */
const readHeader = (response, name) => response.headers?.get(name) ?? undefined

/** The parameters of the first challenge of scheme DPoP (RFC 9110, section 11.6.1). */
export function dpopChallenge(header) {
  if (!header) return
  // A scheme, or a parameter: the first word of a challenge stands alone, and no = follows it.
  const parts = /([!#$%&'*+\-.^_`|~\w]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/g
  let challenge
  for (const [, name, quoted, plain] of header.matchAll(parts)) {
    const value = quoted !== undefined ? quoted.replace(/\\(.)/g, '$1') : plain
    if (value === undefined) {
      if (challenge) break
      if (name.toLowerCase() === 'dpop') challenge = { __proto__: null }
    } else if (challenge) challenge[name.toLowerCase()] ??= value
  }
  return challenge
}
