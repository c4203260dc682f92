// Checks a request's Approov token and DPoP proof. Copy this file; it needs nothing but `jose`.
//
//   const verify = createVerifier({ secret: process.env.APPROOV_SECRET, proof: 'required' })
//   const { claims, proof } = await verify({ method, url, headers, body, binding })
//
// It throws a Refusal when a check fails:
//   1. the token is signed with the account's secret and has not expired (and is of the required channel),
//   2. the proof is signed by the key that it names, and that is the key that the token is bound to (cnf),
//   3. the proof is for this method and URL (htm, htu), and was made just now (iat),
//   4. the proof is for this token (ath),
//   5. the proof is for this body, when it says so (msgs),
//   6. the proof was not used before (jti), nor its nonce.

import { createHash, verify as verifySignature } from 'node:crypto'
import { EmbeddedJWK, calculateJwkThumbprint, decodeProtectedHeader, importJWK, jwtVerify } from 'jose'

/** A request that must be refused. `challenge` is the `error` of the WWW-Authenticate header, 'none' for no error. */
export class Refusal extends Error {
  name = 'Refusal'
  constructor(challenge, message, options) {
    super(message, options)
    this.challenge = challenge
  }

  /** The value of the WWW-Authenticate header of the response, whose status is 401. */
  get header() {
    return `DPoP ${this.challenge === 'none' ? '' : `error="${this.challenge}", `}algs="ES256"`
  }
}

const MAX_TOKEN = 16_384
const MAX_PROOF = 8192

/**
 * @param {object} options
 * @param {string} options.secret the account's secret, base64 or base64url
 * @param {'when-bound' | 'required' | 'optional'} [options.proof] when a request must carry a proof
 * @param {'web' | 'mobile'} [options.channel] accept tokens of this channel only
 * @param {boolean} [options.requireBinding] refuse requests without binding data
 * @param {'when-present' | 'required' | 'ignored'} [options.message] what to do about `msgs`
 * @param {'unique' | 'required' | 'ignored'} [options.nonce] what to do about `nonce`
 * @param {(nonce: unknown) => boolean} [options.acceptNonce] demands a nonce that this accepts
 * @param {(key: string, untilMs: number, nowMs: number) => Promise<boolean> | boolean} [options.firstUse] remembers
 *   keys and returns whether this use is the first; several servers behind one URL must share what it remembers
 */
export function createVerifier({
  secret,
  proof: proofPolicy = 'when-bound',
  channel,
  requireBinding = false,
  message = 'when-present',
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
   * @param {string} request.url as the client sees it; never built from headers that the client controls
   * @param {[string, string][]} request.headers pairs, so that repeated headers are seen
   * @param {Uint8Array | string | null} [request.body] the body, as received
   * @param {Uint8Array | string | null} [request.binding] what the token must be bound to by `pay`
   */
  return async function verify({ method, url, headers, body = null, binding = null }, now = Date.now()) {
    const [token, ...moreTokens] = valuesOf(headers, 'approov-token')
    const [proof, ...moreProofs] = valuesOf(headers, 'dpop')
    if (token === undefined) throw new Refusal('none', 'the request has no token')
    if (moreTokens.length > 0) throw new Refusal('invalid_token', 'the request has more than one token')
    if (moreProofs.length > 0) throw new Refusal('invalid_dpop_proof', 'the request has more than one proof')

    const claims = await readToken(token, now)
    checkBinding(claims, binding)
    const bound = claims.cnf !== undefined
    if (proofPolicy === 'required' && !bound) throw new Refusal('invalid_token', 'the token is not bound to a key')
    if (proof === undefined) {
      if (proofPolicy === 'required' || (proofPolicy === 'when-bound' && bound))
        throw new Refusal('invalid_dpop_proof', 'the request has no proof')
      return { claims, proof: null }
    }
    if (!bound) throw new Refusal('invalid_token', 'the token is not bound to a key')

    const { payload, jwk, thumbprint } = await readProof(proof, now)
    demand(payload.htm === method, 'the proof is for another method')
    demand(normalUrl(payload.htu) === normalUrl(url), 'the proof is for another URL')
    checkTime(payload, now)
    checkNonce(payload.nonce)
    demand(payload.ath === hash(token).toString('base64url'), 'the proof is for another token')
    demand(thumbprint === claims.cnf.jkt, 'the token is bound to another key')
    if (message !== 'ignored') await checkMessage(payload.msgs, body, jwk)

    demand(
      await firstUse(`jti ${thumbprint} ${payload.jti}`, (payload.iat + maxProofAge) * 1000, now),
      'the proof was used before',
    )
    if (payload.nonce !== undefined && noncePolicy !== 'ignored') {
      demand(
        await firstUse(`nonce ${thumbprint} ${JSON.stringify(payload.nonce)}`, now + nonceTtl * 1000, now),
        'the nonce was used before',
      )
    }
    return { claims, proof: payload }
  }

  async function readToken(token, now) {
    const refuse = (why, cause) => new Refusal('invalid_token', why, { cause })
    if (token.length > MAX_TOKEN) throw refuse('the token is too long')
    let payload, protectedHeader
    try {
      ;({ payload, protectedHeader } = await jwtVerify(token, key, {
        algorithms: ['HS256'],
        requiredClaims: ['exp'],
        clockTolerance: leeway,
        currentDate: new Date(now),
      }))
    } catch (cause) {
      throw refuse(`the token is not good: ${cause.message}`, cause)
    }
    if ('crit' in protectedHeader) throw refuse('the token demands an extension')
    const { typ = 'JWT' } = protectedHeader
    if (typeof typ !== 'string' || typ.toUpperCase() !== 'JWT') throw refuse("the token's typ is not JWT")
    const { embed, did, cnf } = payload
    const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
    if (embed !== undefined && !isObject(embed)) throw refuse('the claim embed is malformed')
    if (did !== undefined && typeof did !== 'string') throw refuse('the claim did is malformed')
    if (embed !== undefined && did !== undefined) throw refuse('the token is of two channels')
    if (cnf !== undefined && typeof cnf?.jkt !== 'string') throw refuse('the claim cnf is malformed')
    const its = embed !== undefined ? 'web' : did !== undefined ? 'mobile' : 'unspecified'
    if (channel !== undefined && its !== channel) throw refuse(`tokens of the channel "${its}" are not accepted`)
    return payload
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

  async function readProof(text, now) {
    if (text.length > MAX_PROOF) throw new Refusal('invalid_dpop_proof', 'the proof is too long')
    try {
      const header = decodeProtectedHeader(text)
      demand(header.typ === 'dpop+jwt', "the proof's typ is not dpop+jwt")
      demand(header.jwk?.kty === 'EC' && header.jwk.crv === 'P-256', 'the proof has no P-256 key')
      demand(!('d' in header.jwk), "the proof's key is private")
      // The time is for `exp` and `nbf`, should a proof have them; checkTime is stricter.
      const { payload } = await jwtVerify(text, EmbeddedJWK, {
        algorithms: ['ES256'],
        currentDate: new Date(now),
        clockTolerance: clockSkew,
      })
      for (const claim of ['jti', 'htm', 'htu'])
        demand(
          typeof payload[claim] === 'string' && payload[claim] !== '',
          `the claim ${claim} is missing or malformed`,
        )
      demand(payload.jti.length <= 256, 'the claim jti is too long')
      demand(Number.isFinite(payload.iat), 'the claim iat is missing or malformed')
      return { payload, jwk: header.jwk, thumbprint: await calculateJwkThumbprint(header.jwk) }
    } catch (cause) {
      throw cause instanceof Refusal
        ? cause
        : new Refusal('invalid_dpop_proof', `the proof is not good: ${cause.message}`, { cause })
    }
  }

  function checkTime({ iat, exp, nbf }, now) {
    const seconds = now / 1000
    demand(iat >= seconds - maxProofAge && !(exp <= seconds), 'the proof is too old')
    demand(iat <= seconds + clockSkew && !(nbf > seconds + clockSkew), 'the proof was made in the future')
  }

  function checkNonce(nonce) {
    const wanted = acceptNonce !== undefined || noncePolicy === 'required'
    if (wanted && (nonce === undefined || nonce === null)) throw new Refusal('use_dpop_nonce', 'the proof has no nonce')
    if (acceptNonce !== undefined && !acceptNonce(nonce))
      throw new Refusal('use_dpop_nonce', "the proof's nonce is not accepted")
  }

  async function checkMessage(msgs, body, jwk) {
    if (msgs === undefined) {
      demand(message !== 'required', 'the proof does not cover the body')
      return
    }
    demand(typeof msgs === 'string' && body !== null, 'the proof cannot be compared with a body')
    if (msgs === hash(body).toString('base64url')) return
    const signature = Buffer.from(msgs, 'base64url')
    const key = { key: await importKey(jwk), dsaEncoding: 'ieee-p1363' }
    const signed = /^[\w-]{86}$/.test(msgs) && verifySignature('sha256', Buffer.from(body), key, signature)
    demand(signed, 'the proof is for another body')
  }
}

/** Remembers in this process's memory. It forgets what has expired, and refuses rather than forget anything else. */
export function memory(capacity = 1_000_000) {
  const kept = new Map()
  let swept = 0
  return (key, until, now) => {
    if (now - swept > 1000) {
      for (const [other, expiry] of kept) if (expiry < now) kept.delete(other)
      swept = now
    }
    if (kept.get(key) >= now) return false
    if (kept.size >= capacity) throw new Error('the replay memory is full')
    kept.set(key, until)
    return true
  }
}

function demand(fulfilled, otherwise) {
  if (!fulfilled) throw new Refusal('invalid_dpop_proof', otherwise)
}

const hash = (data) => createHash('sha256').update(data).digest()
const valuesOf = (headers, name) => headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value)
const importKey = (jwk) => importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x, y: jwk.y }, 'ES256')

/** Origin and path, without query and fragment; an object that equals nothing when there is no such URL. */
function normalUrl(text) {
  try {
    const { protocol, origin, pathname, username, password } = new URL(text)
    if (/^https?:$/.test(protocol) && username + password === '') return origin + pathname
  } catch {
    /* not a URL: falls through */
  }
  return Symbol('no URL')
}
