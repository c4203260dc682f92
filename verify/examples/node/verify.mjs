// Checks a request's Approov token and DPoP proof. Copy this file; it needs nothing but `jose`.
//
//   const verify = createVerifier({ secret: process.env.APPROOV_SECRET, proof: 'required' })
//   const urlOf = publicUrl('https://api.example.com')
//   const { claims, proof } = await verify({ method, url: urlOf(request.url), headers, body, binding })
//
// It throws a Refusal when a check fails:
//   1. the token is signed with the account's secret and has not expired (and is of the required channel),
//   2. the proof is signed by the key that it names, and that is the key that the token is bound to (cnf),
//   3. the proof is for this method and URL (htm, htu), and was made just now (iat),
//   4. the proof is for this token (ath),
//   5. the proof is for this query and this body, when it says so (htq, msgs),
//   6. the proof was not used before (jti), nor a nonce that was demanded.

import { createHash, verify as verifySignature } from 'node:crypto'
import { calculateJwkThumbprint, compactVerify, importJWK } from 'jose'

/** A request that must be refused. `challenge` is the `error` of the WWW-Authenticate header, 'none' for no error. */
export class Refusal extends Error {
  name = 'Refusal'
  constructor(challenge, message, { status = 401, ...options } = {}) {
    super(message, options)
    this.challenge = challenge
    this.status = status
  }

  /** The value of the WWW-Authenticate header of a response with status 401. */
  get header() {
    return `DPoP ${this.challenge === 'none' ? '' : `error="${this.challenge}", `}algs="ES256"`
  }
}

const MAX_TOKEN = 16_384
const MAX_PROOF = 8192
/** The most keys that `memory` holds for one session's key when it is half full. */
const MAX_KEYS_PER_HOLDER = 1000

/**
 * @param {object} options
 * @param {string} options.secret the account's secret, base64 or base64url
 * @param {'when-bound' | 'required' | 'optional'} [options.proof] when a request must carry a proof
 * @param {'web' | 'mobile'} [options.channel] accept tokens of this channel only
 * @param {boolean} [options.requireBinding] refuse requests without binding data
 * @param {'when-present' | 'required' | 'ignored'} [options.message] what to do about `msgs`
 * @param {'when-present' | 'required' | 'ignored'} [options.query] what to do about `htq`; `htu` does not cover the query
 * @param {'unique' | 'required' | 'ignored'} [options.nonce] what to do about `nonce`: 'unique' accepts once what
 *   acceptNonce demands, and does not look at others; 'required' demands one that was not used before
 * @param {(nonce: unknown) => boolean} [options.acceptNonce] demands a nonce that this accepts
 * @param {(key: string, untilMs: number, nowMs: number, holder: string) => Promise<boolean> | boolean} [options.firstUse]
 *   remembers keys and returns whether this use is the first; several servers behind one URL must share what it
 *   remembers. `holder` is the thumbprint of the session's key, for a bound on what each may store
 */
export function createVerifier({
  secret,
  proof: proofPolicy = 'when-bound',
  channel,
  requireBinding = false,
  message = 'when-present',
  query: queryPolicy = 'when-present',
  nonce: noncePolicy = 'unique',
  acceptNonce,
  leeway = 5,
  maxProofAge = 60,
  clockSkew = 15,
  nonceTtl = 600,
  firstUse = memory(),
}) {
  const key = Buffer.from(secret, 'base64') // reads base64url too
  if (key.length < 32) throw new TypeError('the secret must be base64 of at least 32 bytes')

  /**
   * @param {object} request
   * @param {string} request.method
   * @param {string | null} request.url as the client sees it, with its query, made by `publicUrl`; never built from
   *   headers that the client controls, nor by adding the request target to a text. null: no proof is for it
   * @param {[string, string][]} request.headers pairs, so that repeated headers are seen
   * @param {Uint8Array | string | null} [request.body] the body, as received
   * @param {Uint8Array | string | null} [request.binding] what the token must be bound to by `pay`
   */
  return async function verify({ method, url, headers, body = null, binding = null }, now = Date.now()) {
    const { token, byScheme, proof } = presented(headers)
    const claims = await readToken(token, now)
    checkBinding(claims, binding)
    const bound = claims.cnf !== undefined
    const policy = byScheme ? 'required' : proofPolicy
    if (policy === 'required' && !bound) throw new Refusal('invalid_token', 'the token is not bound to a key')
    if (proof === undefined) {
      demand(policy === 'optional' || !bound, 'the request has no proof')
      return { claims, proof: null }
    }
    if (!bound) throw new Refusal('invalid_token', 'the token is not bound to a key')

    const { payload, jwk, thumbprint } = await readProof(proof)
    demand(payload.htm === method, 'the proof is for another method')
    demand(isSameUrl(payload.htu, url), 'the proof is for another URL')
    checkTime(payload, now)
    checkNonce(payload.nonce)
    demand(payload.ath === hash(token).toString('base64url'), 'the proof is for another token')
    demand(thumbprint === claims.cnf.jkt, 'the token is bound to another key')
    if (queryPolicy !== 'ignored') checkQuery(payload.htq, queryOf(url))
    if (message !== 'ignored') await checkMessage(payload.msgs, body, jwk)

    // Longer than it is accepted here, for other servers whose clocks are behind.
    const until = millis(payload.iat) + (maxProofAge + clockSkew) * 1000
    demand(await firstUse(`jti ${thumbprint} ${payload.jti}`, until, now, thumbprint), 'the proof was used before')
    const demanded = acceptNonce !== undefined
    if (noncePolicy === 'required' || (noncePolicy === 'unique' && demanded)) {
      const used = `nonce ${thumbprint} ${JSON.stringify(payload.nonce)}`
      if (!(await firstUse(used, now + nonceTtl * 1000, now, thumbprint)))
        throw new Refusal(demanded ? 'use_dpop_nonce' : 'invalid_dpop_proof', 'the nonce was used before')
    }
    return { claims, proof: payload }
  }

  async function readToken(token, now) {
    const refuse = (why, cause) => new Refusal('invalid_token', why, { cause })
    if (token.length > MAX_TOKEN) throw refuse('the token is too long')
    let header, claims
    try {
      ;({ header, claims } = await readJws(token, 'HS256', () => key))
    } catch (cause) {
      throw refuse(`the token is not good: ${cause.message}`, cause)
    }
    const { typ = 'JWT', kid = '' } = header
    if (typeof typ !== 'string' || typ.toUpperCase() !== 'JWT') throw refuse("the token's typ is not JWT")
    if (typeof kid !== 'string') throw refuse('the header kid is malformed')
    const { exp, nbf = 0, iat = 0, embed, did, cnf } = claims
    for (const [name, date] of Object.entries({ exp, nbf, iat }))
      if (!isDate(date)) throw refuse(`the claim ${name} is missing or malformed`)
    if (millis(exp) + leeway * 1000 <= now) throw refuse('the token has expired')
    if (millis(nbf) > now + leeway * 1000) throw refuse('the token is not valid yet')
    if (embed !== undefined && !isObject(embed)) throw refuse('the claim embed is malformed')
    if (did !== undefined && typeof did !== 'string') throw refuse('the claim did is malformed')
    if (embed !== undefined && did !== undefined) throw refuse('the token is of two channels')
    if (cnf !== undefined && !is256Bits(cnf?.jkt)) throw refuse('the claim cnf is malformed')
    const its = embed !== undefined ? 'web' : did !== undefined ? 'mobile' : 'unspecified'
    if (channel !== undefined && its !== channel) throw refuse(`tokens of the channel "${its}" are not accepted`)
    return claims
  }

  function checkBinding({ pay }, binding) {
    const refuse = (why) => new Refusal('invalid_token', why)
    if (binding === null) {
      if (requireBinding) throw refuse('the request lacks the data that its token must be bound to')
      return
    }
    if (pay === undefined) throw refuse('the token is not bound to data')
    if (pay !== hash(binding).toString('base64')) throw refuse('the token is bound to other data')
  }

  async function readProof(text) {
    demand(text.length <= MAX_PROOF, 'the proof is too long')
    try {
      const { header, claims } = await readJws(text, 'ES256', ({ typ, jwk }) => {
        demand(typ === 'dpop+jwt', "the proof's typ is not dpop+jwt")
        demand(jwk?.kty === 'EC' && jwk.crv === 'P-256', 'the proof has no P-256 key')
        const isSecret = (member) => ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'].includes(member)
        demand(!Object.keys(jwk).some(isSecret), "the proof's key is private")
        demand(is256Bits(jwk.x) && is256Bits(jwk.y), "the proof's key is malformed")
        const { use = 'sig', alg = 'ES256', key_ops: operations = ['verify'] } = jwk
        const forVerifying = use === 'sig' && alg === 'ES256' && Array.isArray(operations)
        demand(forVerifying && operations.includes('verify'), "the proof's key is for something else")
        return importKey(jwk)
      })
      for (const claim of ['jti', 'htm', 'htu']) demand(isText(claims[claim]), `the claim ${claim} is malformed`)
      for (const claim of ['ath', 'msgs', 'htq'])
        demand(!(claim in claims) || isText(claims[claim]), `the claim ${claim} is malformed`)
      demand(Buffer.byteLength(claims.jti) <= 256, 'the claim jti is too long')
      const { iat, exp = 0, nbf = 0 } = claims
      for (const [name, date] of Object.entries({ iat, exp, nbf }))
        demand(isDate(date), `the claim ${name} is missing or malformed`)
      return { payload: claims, jwk: header.jwk, thumbprint: await calculateJwkThumbprint(header.jwk) }
    } catch (cause) {
      throw cause instanceof Refusal
        ? cause
        : new Refusal('invalid_dpop_proof', `the proof is not good: ${cause.message}`, { cause })
    }
  }

  function checkTime({ iat, exp = Infinity, nbf = 0 }, now) {
    const ahead = now + clockSkew * 1000
    demand(millis(iat) >= now - maxProofAge * 1000 && millis(exp) > now, 'the proof is too old')
    demand(millis(iat) <= ahead && millis(nbf) <= ahead, 'the proof was made in the future')
  }

  function checkNonce(nonce) {
    const wanted = acceptNonce !== undefined || noncePolicy === 'required'
    if (wanted && (nonce === undefined || nonce === null)) throw new Refusal('use_dpop_nonce', 'the proof has no nonce')
    if (acceptNonce !== undefined && !acceptNonce(nonce))
      throw new Refusal('use_dpop_nonce', "the proof's nonce is not accepted")
  }

  function checkQuery(htq, query) {
    if (htq !== undefined) demand(htq === hash(query).toString('base64url'), 'the proof is for another query')
    else demand(queryPolicy !== 'required' || query === '', 'the proof does not cover the query')
  }

  async function checkMessage(msgs, body, jwk) {
    if (msgs === undefined) {
      demand(message !== 'required', 'the proof does not cover the body')
      return
    }
    demand(body !== null, 'the proof cannot be compared with a body')
    if (msgs === hash(body).toString('base64url')) return
    const signature = Buffer.from(msgs, 'base64url')
    const key = { key: await importKey(jwk), dsaEncoding: 'ieee-p1363' }
    const signed =
      isBase64url(msgs) && signature.length === 64 && verifySignature('sha256', Buffer.from(body), key, signature)
    demand(signed, 'the proof is for another body')
  }
}

/**
 * Where clients find this server, such as 'https://api.example.com', with a path when a proxy in front takes it off.
 *
 * The result makes the URL of a request from its target (`request.url` in Node): null for a target that can be read in
 * two ways, since it does not begin with one slash or has dot segments. Never join the two as text: with a target `m/` the
 * text 'https://api.example.co' becomes another server's URL.
 *
 * @param {string} text from configuration, never from a request
 * @returns {(target: string) => string | null}
 */
export function publicUrl(text) {
  const base = splitUrl(text)
  if (base === null || readUrl(text) === null)
    throw new TypeError(`"${text}" is not a URL such as https://api.example.com`)
  const prefix = `${base.origin}${readUrl(text).slice(base.origin.length).replace(/\/+$/, '')}`
  return (target) => {
    if (!/^\/(?!\/)[!-~]*$/.test(target) || target.includes('#')) return null
    const url = prefix + target
    // The joined text is read again, so that no target, whatever is in it, leads to another server.
    return readUrl(url, { ofRequest: true }) !== null && splitUrl(url).origin === base.origin ? url : null
  }
}

/**
 * Remembers in this process's memory. It forgets what has expired, and nothing else. From half of its capacity on, each
 * session's key has a quota, which shrinks with the room that is left: one session cannot fill it for all others.
 */
export function memory(capacity = 1_000_000) {
  const [kept, held] = [new Map(), new Map()]
  let swept = 0
  const forget = (key, holder) => {
    kept.delete(key)
    const left = held.get(holder) - 1
    if (left > 0) held.set(holder, left)
    else held.delete(holder)
  }
  const quota = () => {
    const free = capacity - kept.size
    const atHalf = Math.min(MAX_KEYS_PER_HOLDER, Math.floor(capacity / 16))
    return free * 2 >= capacity ? Infinity : Math.max(1, Math.floor((atHalf * free * 2) / capacity))
  }
  return (key, until, now, holder) => {
    if (now - swept > 1000 || now < swept) {
      for (const [other, { until, holder }] of kept) if (until < now) forget(other, holder)
      swept = now
    }
    const earlier = kept.get(key)
    if (earlier !== undefined) {
      if (earlier.until >= now) return false
      forget(key, earlier.holder)
    }
    if (kept.size >= capacity) throw new Error('the replay memory is full')
    const count = held.get(holder) ?? 0
    if (count >= quota())
      throw new Refusal('none', 'the key has used too many proofs within a short time', { status: 429 })
    kept.set(key, { until, holder })
    held.set(holder, count + 1)
    return true
  }
}

/** Token and proof, each at most once: `Approov-Token` or `Authorization: DPoP …` (RFC 9449 section 7.1), and `DPoP`. */
function presented(headers) {
  const valuesOf = (name) => headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value)
  const [tokens, authorization, proofs] = [valuesOf('approov-token'), valuesOf('authorization'), valuesOf('dpop')]
  const scheme = /^dpop(?:$| +)/i
  const credentials = authorization.filter((value) => scheme.test(value)).map((value) => value.replace(scheme, ''))
  if (tokens.length + credentials.length > 1 || (credentials.length > 0 && authorization.length > 1))
    throw new Refusal('invalid_token', 'the request has more than one token')
  demand(proofs.length < 2, 'the request has more than one proof')
  const [token] = [...tokens, ...credentials]
  if (token === undefined) throw new Refusal('none', 'the request has no token')
  return { token, byScheme: credentials.length > 0, proof: proofs[0] }
}

/** Header and claims of a JWS whose signature is good. */
async function readJws(text, algorithm, keyFor) {
  const parts = text.split('.')
  if (parts.length !== 3 || !parts.every(isBase64url)) throw new TypeError('it is not a compact JWS')
  const header = readObject(parts[0])
  if ('crit' in header) throw new TypeError('it demands an extension')
  if (header.alg !== algorithm) throw new TypeError('its algorithm is not accepted')
  await compactVerify(text, await keyFor(header), { algorithms: [algorithm] })
  return { header, claims: readObject(parts[1]) }
}

/** A JSON object without what other readers of JSON understand in another way or not at all. */
function readObject(part) {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(part, 'base64url'))
  const object = JSON.parse(text, (name, value) => {
    const isPortable = typeof value === 'number' ? Number.isFinite(value) : (value?.isWellFormed?.() ?? true)
    if (!name.isWellFormed() || !isPortable) throw new TypeError('it has half characters or numbers beyond all bounds')
    return value
  })
  if (!isObject(object)) throw new TypeError('it is not a JSON object')
  return object
}

function demand(fulfilled, otherwise) {
  if (!fulfilled) throw new Refusal('invalid_dpop_proof', otherwise)
}

const hash = (data) => createHash('sha256').update(data).digest()
const importKey = (jwk) => importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x, y: jwk.y }, 'ES256')
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const isText = (value) => typeof value === 'string' && value !== ''
/** Unpadded base64url; each byte string has one spelling. */
const isBase64url = (text) => Buffer.from(text, 'base64url').toString('base64url') === text
const is256Bits = (value) => isText(value) && value.length === 43 && isBase64url(value)
const isDate = (value) => typeof value === 'number' && value >= 0
const millis = (seconds) => Math.trunc(seconds * 1000)

/** Whether a proof's `htu` is the URL of a request, queries aside (RFC 9449 section 4.3, check 9). */
export function isSameUrl(htu, url) {
  const requested = readUrl(url, { ofRequest: true })
  return requested !== null && readUrl(htu) === requested
}

/** Origin and path of a URL in their normal form (RFC 3986 sections 6.2.2 and 6.2.3); null when there is none. */
function readUrl(text, { ofRequest = false } = {}) {
  const url = splitUrl(text)
  if (url === null) return null
  const kept = []
  let endsWithDotSegment = false
  for (const segment of url.path.split('/').slice(1)) {
    // Printable ASCII without a backslash, and each percent sign with its two digits.
    if (!/^(?:[!-$&-[\]-~]|%[\da-f]{2})*$/i.test(segment)) return null
    const normal = segment.replace(/%../g, (encoded) => {
      const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16))
      return /[\w.~-]/.test(character) ? character : encoded.toUpperCase()
    })
    endsWithDotSegment = normal === '.' || normal === '..'
    // Clients resolve dot segments before they send a request.
    if (endsWithDotSegment && ofRequest) return null
    if (normal === '..') kept.pop()
    else if (normal !== '.') kept.push(normal)
  }
  if (endsWithDotSegment) kept.push('')
  return `${url.origin}/${kept.join('/')}`
}

/** Origin and path of an absolute http or https URL without user information; null for anything else. */
function splitUrl(text) {
  const [, scheme, authority, path] = /^(https?):\/\/([^/?#]*)([^?#]*)/i.exec(text ?? '') ?? []
  const [, name, address, port = ''] =
    /^(?:([\w.~!$&'()*+,;=-]+)|\[([\da-f:.]+)\])(?::(\d*))?$/i.exec(authority ?? '') ?? []
  const host = name?.toLowerCase() ?? canonicalIpv6(address)
  if (host === null || Number(port) > 65535) return null
  const usual = scheme.toLowerCase() === 'https' ? 443 : 80
  const number = port === '' ? usual : Number(port)
  return { origin: `${scheme.toLowerCase()}://${host}${number === usual ? '' : `:${number}`}`, path: path || '/' }
}

function canonicalIpv6(address) {
  try {
    return address === undefined ? null : new URL(`http://[${address}]`).hostname
  } catch {
    return null
  }
}

/** The query of a URL without its question mark, as it was sent. */
const queryOf = (url) => /^[^?#]*\?([^#]*)/.exec(url)?.[1] ?? ''
