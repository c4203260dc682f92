// Writes cases.json: requests that must be refused, and some that must pass, each with the verdict.
// It signs with Node's own cryptography, so that the library under test has no part in it.
//
//     node verify/conformance/generate.mjs
//
// Keys are new each time; the cases and their verdicts are what counts.

import { createCipheriv, createHash, createHmac, generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { writeFileSync } from 'node:fs'

const NOW = 1_800_000_000
const URL = 'https://api.example.com/shapes'

const b64u = (data) => Buffer.from(data).toString('base64url')
const sha256 = (data) => createHash('sha256').update(data).digest()
const json = (value) => (typeof value === 'string' ? value : JSON.stringify(value))

const secret = randomBytes(64)
const otherSecret = randomBytes(64)
const jweSecret = randomBytes(32)
const ec = (namedCurve = 'P-256') => {
  const pair = generateKeyPairSync('ec', { namedCurve })
  return { ...pair, jwk: pair.publicKey.export({ format: 'jwk' }), private: pair.privateKey.export({ format: 'jwk' }) }
}
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const session = ec()
const stranger = ec()
const accountEc = ec()
const p384 = ec('P-384')

const thumbprint = ({ jwk }) => b64u(sha256(JSON.stringify({ crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y })))
const hmac =
  (key, hash = 'sha256') =>
  (input) =>
    createHmac(hash, key).update(input).digest()
const ecdsa =
  ({ privateKey }, dsaEncoding = 'ieee-p1363') =>
  (input) =>
    sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding })
const rs256 =
  ({ privateKey }) =>
  (input) =>
    sign('sha256', Buffer.from(input), privateKey)
const jws = (header, payload, signer) => {
  const input = `${b64u(json(header))}.${b64u(typeof payload === 'string' || Buffer.isBuffer(payload) ? payload : json(payload))}`
  return `${input}.${b64u(signer(input))}`
}

// ---- good parts, which each case alters ----

const WEB = {
  exp: NOW + 120,
  ip: '192.0.2.1',
  arc: 'EAM2W37PSU',
  embed: { 'hcap:site': { challenge_ts: '2027-01-15T08:00:00Z', hostname: 'app.example.com' } },
  cnf: { jkt: thumbprint(session) },
}
const token = (change = {}, header = { typ: 'JWT', alg: 'HS256' }, signer = hmac(secret)) =>
  jws(header, merge(WEB, change), signer)
const GOOD = token()
const unbound = (change = {}) => token({ cnf: undefined, ...change })
const MOBILE = unbound({ embed: undefined, did: 'device' })

let count = 0
const HEADER = { typ: 'dpop+jwt', alg: 'ES256', jwk: session.jwk }
const claimsFor = (text) => ({ jti: `jti-${++count}`, htm: 'POST', htu: URL, iat: NOW, ath: b64u(sha256(text)) })
const proof = (change = {}, header = {}, signer = ecdsa(session), text = GOOD) =>
  jws(merge(HEADER, header), merge(claimsFor(text), change), signer)
const rawProof = (payload) => jws(HEADER, payload, ecdsa(session))

/** `change` over `base`, where undefined removes a member. */
function merge(base, change) {
  return Object.fromEntries(Object.entries({ ...base, ...change }).filter(([, value]) => value !== undefined))
}

const cases = []
const CHALLENGE = {
  token_missing: 'none',
  body_unread: null,
  replay_store: null,
  proof_nonce_missing: 'use_dpop_nonce',
  proof_nonce: 'use_dpop_nonce',
}
/**
 * `name`: what is tried. `error`: the library's code, or null when the request is good. `received`: public URL and request
 * target, from which the implementation makes the URL itself. `challenge`: where `error` alone does not decide it.
 */
function add(
  name,
  error,
  {
    tokens = [GOOD],
    proofs = [proof()],
    config = {},
    method = 'POST',
    url = URL,
    body = null,
    binding = null,
    earlier = [],
    headers: more = [],
    received,
    challenge: given,
  } = {},
) {
  const headers = [...tokens.map((t) => ['Approov-Token', t]), ...more, ...proofs.map((p) => ['DPoP', p])]
  const challenge =
    given ??
    (error === null
      ? null
      : error in CHALLENGE
        ? CHALLENGE[error]
        : /^(token|binding|key_binding)_/.test(error)
          ? 'invalid_token'
          : 'invalid_dpop_proof')
  const addressed = received ?? { url }
  cases.push({
    name,
    config,
    earlier,
    request: { method, ...addressed, headers, body, binding },
    error,
    challenge,
  })
}
const tokenCase = (name, error, text, more = {}) => add(name, error, { tokens: [text], proofs: [], ...more })
const proofCase = (name, error, text, more = {}) => add(name, error, { proofs: [text], ...more })
const request = (proofs, tokens = [GOOD]) => ({
  method: 'POST',
  url: URL,
  headers: [...tokens.map((t) => ['Approov-Token', t]), ...proofs.map((p) => ['DPoP', p])],
  body: null,
  binding: null,
})

// ---- good ones, so that the refusals below are not for another reason ----

add('a web token with its proof', null)
tokenCase('a mobile token without proof', null, MOBILE)
tokenCase('a token of no channel', null, unbound({ embed: undefined }))
tokenCase('a token without typ', null, jws({ alg: 'HS256' }, { exp: NOW + 1 }, hmac(secret)))
tokenCase('a kid where the key has no name', null, jws({ alg: 'HS256', kid: 'any' }, { exp: NOW + 1 }, hmac(secret)))
tokenCase(
  'results of all check services',
  null,
  unbound({
    embed: {
      'fp:public': { visitorId: 'visitor', visits: [{ requestId: 'request' }, {}], extra: 1 },
      'hcap:site': { challenge_ts: '2027-01-15T08:00:00Z', hostname: 'one.example' },
      'recap:site': { hostname: 'two.example' },
      'new:service': {},
    },
  }),
)
add('an unknown claim', null, {
  tokens: [token({ extra: [1] })],
  proofs: [proof({}, {}, ecdsa(session), token({ extra: [1] }))],
})

// ---- token: form ----

add('no token', 'token_missing', { tokens: [], proofs: [] })
add('no token but a proof', 'token_missing', { tokens: [] })
add('two tokens', 'token_repeated', { tokens: [GOOD, GOOD] })
add('two different tokens', 'token_repeated', { tokens: [GOOD, MOBILE] })
tokenCase('an empty token', 'token_malformed', '')
tokenCase('garbage', 'token_malformed', 'garbage')
tokenCase('dots', 'token_malformed', '..')
tokenCase('two parts', 'token_malformed', GOOD.split('.').slice(0, 2).join('.'))
tokenCase('four parts', 'token_malformed', `${GOOD}.${GOOD.split('.')[2]}`)
tokenCase('two tokens in one header', 'token_algorithm', `${GOOD}, ${GOOD}`)
tokenCase('a scheme before the token', 'token_malformed', `Bearer ${GOOD}`)
tokenCase('a header that is not base64url', 'token_malformed', GOOD.replace(/^./, '%'))
tokenCase('a header that is not JSON', 'token_malformed', jws('{"alg":"HS256"', WEB, hmac(secret)))
tokenCase('a header that is an array', 'token_malformed', jws('["HS256"]', WEB, hmac(secret)))
tokenCase('a header without alg', 'token_malformed', jws({ typ: 'JWT' }, WEB, hmac(secret)))
tokenCase('a header whose alg is a number', 'token_malformed', jws({ alg: 256 }, WEB, hmac(secret)))
tokenCase(
  'a header that names alg twice',
  'token_duplicate_member',
  jws('{"alg":"none","alg":"HS256"}', unboundClaims(), hmac(secret)),
)
tokenCase(
  'half a character in the header',
  'token_malformed',
  jws('{"alg":"HS256","kid":"\\ud800"}', unboundClaims(), hmac(secret)),
)
tokenCase(
  'a header with a byte order mark',
  'token_malformed',
  jws('\ufeff{"alg":"HS256"}', unboundClaims(), hmac(secret)),
)
tokenCase('an oversized token', 'token_too_large', unbound({ pad: 'x'.repeat(16_384) }))
tokenCase(
  'the longest token',
  null,
  ofLength(16_384, (pad) => unboundToken({ pad }, hmac(secret))),
)
tokenCase(
  'a token that is one byte too long',
  'token_too_large',
  ofLength(16_385, (pad) => unboundToken({ pad }, hmac(secret))),
)
tokenCase('padding after the signature', 'token_malformed', `${MOBILE}=`)
tokenCase('stray bits at the end of the signature', 'token_malformed', strayBits(MOBILE))
tokenCase(
  'the other base64 alphabet',
  'token_malformed',
  MOBILE.replace(
    /\.([^.]*)\.[^.]*$/,
    (_, payload) => `.${payload}.${hmac(secret)(MOBILE.slice(0, MOBILE.lastIndexOf('.'))).toString('base64')}`,
  ),
)

// ---- token: algorithm, key, signature ----

for (const alg of ['none', 'None', 'NONE', '']) {
  tokenCase(
    `alg ${alg || 'empty'} and no signature`,
    'token_algorithm',
    jws({ alg }, unboundClaims(), () => ''),
  )
}
tokenCase('alg none with a good signature', 'token_algorithm', jws({ alg: 'none' }, unboundClaims(), hmac(secret)))
tokenCase('alg in lower case', 'token_algorithm', jws({ alg: 'hs256' }, unboundClaims(), hmac(secret)))
tokenCase('HS384 with the secret', 'token_algorithm', jws({ alg: 'HS384' }, unboundClaims(), hmac(secret, 'sha384')))
tokenCase('HS512 with the secret', 'token_algorithm', jws({ alg: 'HS512' }, unboundClaims(), hmac(secret, 'sha512')))
tokenCase('RS256 by a stranger', 'token_algorithm', jws({ alg: 'RS256' }, unboundClaims(), rs256(rsa)))
tokenCase(
  'ES256 with the key in the header',
  'token_algorithm',
  jws({ alg: 'ES256', jwk: stranger.jwk }, unboundClaims(), ecdsa(stranger)),
)
tokenCase('a proof in place of the token', 'token_type', proof())
tokenCase('signed with another secret', 'token_signature', unboundToken({}, hmac(otherSecret)))
tokenCase('signed with an empty secret', 'token_signature', unboundToken({}, hmac('')))
tokenCase('signed with the text of the secret', 'token_signature', unboundToken({}, hmac(secret.toString('base64'))))
tokenCase(
  'kid that points to a file, signed with an empty secret',
  'token_signature',
  jws({ alg: 'HS256', kid: '../../../../dev/null' }, unboundClaims(), hmac('')),
)
tokenCase(
  'kid with an injection, signed with its result',
  'token_signature',
  jws({ alg: 'HS256', kid: "' UNION SELECT 'x' -- " }, unboundClaims(), hmac('x')),
)
tokenCase(
  'a key URL in the header',
  'token_signature',
  jws({ alg: 'HS256', jku: 'https://evil.example/keys' }, unboundClaims(), hmac(otherSecret)),
)
tokenCase(
  'a secret in the header',
  'token_signature',
  jws({ alg: 'HS256', jwk: { kty: 'oct', k: b64u(otherSecret) } }, unboundClaims(), hmac(otherSecret)),
)
tokenCase('kid that is a number', 'token_malformed', jws({ alg: 'HS256', kid: 1 }, unboundClaims(), hmac(secret)))
tokenCase('an empty signature', 'token_signature', `${MOBILE.slice(0, MOBILE.lastIndexOf('.'))}.`)
tokenCase(
  'a truncated signature',
  'token_signature',
  jws({ alg: 'HS256' }, unboundClaims(), (input) => hmac(secret)(input).subarray(0, 31)),
)
tokenCase(
  'a signature with a byte more',
  'token_signature',
  jws({ alg: 'HS256' }, unboundClaims(), (input) => Buffer.concat([hmac(secret)(input), Buffer.alloc(1)])),
)
tokenCase(
  'a payload that was altered',
  'token_signature',
  MOBILE.replace(/\.[^.]*\./, `.${b64u(json({ exp: NOW + 9999, did: 'device' }))}.`),
)
tokenCase('a header that was altered', 'token_signature', MOBILE.replace(/^[^.]*/, b64u('{"alg":"HS256"}')))
tokenCase('crit', 'token_critical_header', jws({ alg: 'HS256', crit: ['exp'], exp: 1 }, unboundClaims(), hmac(secret)))
tokenCase(
  'crit with b64',
  'token_critical_header',
  jws({ alg: 'HS256', crit: ['b64'], b64: true }, unboundClaims(), hmac(secret)),
)
tokenCase('an empty crit', 'token_critical_header', jws({ alg: 'HS256', crit: [] }, unboundClaims(), hmac(secret)))
tokenCase('a token of another type', 'token_type', jws({ alg: 'HS256', typ: 'at+jwt' }, unboundClaims(), hmac(secret)))
tokenCase('typ that is a number', 'token_type', jws({ alg: 'HS256', typ: 1 }, unboundClaims(), hmac(secret)))

// ---- token: claims ----

tokenCase('a payload that is not JSON', 'token_malformed', jws({ alg: 'HS256' }, 'exp', hmac(secret)))
tokenCase('a payload that is an array', 'token_malformed', jws({ alg: 'HS256' }, '[1]', hmac(secret)))
tokenCase(
  'a payload nested deeper than any reader should follow',
  'token_malformed',
  jws({ alg: 'HS256' }, `{"exp":${NOW + 60},"x":${'['.repeat(2000)}${']'.repeat(2000)}}`, hmac(secret)),
)
tokenCase(
  'a payload that is not UTF-8',
  'token_malformed',
  jws({ alg: 'HS256' }, Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), hmac(secret)),
)
tokenCase(
  'a claim named twice',
  'token_duplicate_member',
  jws({ alg: 'HS256' }, `{"exp":${NOW - 60},"exp":${NOW + 60}}`, hmac(secret)),
)
tokenCase(
  'a claim named twice, deep',
  'token_duplicate_member',
  jws({ alg: 'HS256' }, `{"exp":${NOW + 60},"embed":{"fp:k":{"visitorId":"a","visitorId":"b"}}}`, hmac(secret)),
)
for (const [name, exp] of [
  ['no exp', undefined],
  ['exp as text', String(NOW + 60)],
  ['exp null', null],
  ['exp true', true],
  ['exp in a list', [NOW + 60]],
]) {
  tokenCase(name, 'token_claim', unbound({ exp }))
}
tokenCase('a negative exp', 'token_claim', unbound({ exp: -1 }))
for (const [name, text] of [
  ['exp beyond all numbers', '{"exp":1e999}'],
  ['exp of four hundred digits', `{"exp":1${'0'.repeat(400)}}`],
  ['a number beyond all bounds, deep', `{"exp":${NOW + 60},"x":[{"y":-1e999}]}`],
  ['half a character', `{"exp":${NOW + 60},"did":"\\ud800"}`],
  ['half a character in a name', `{"exp":${NOW + 60},"\\udfff":1}`],
  ['a byte order mark', `\ufeff{"exp":${NOW + 60}}`],
]) {
  tokenCase(name, 'token_malformed', jws({ alg: 'HS256' }, text, hmac(secret)))
}
for (const encoding of ['utf16le', 'latin1']) {
  const text = `{"exp":${NOW + 60},"x":"é"}`
  tokenCase(
    `a payload in ${encoding}`,
    'token_malformed',
    jws({ alg: 'HS256' }, Buffer.from(text, encoding), hmac(secret)),
  )
}
tokenCase('exp of three hundred digits', null, jws({ alg: 'HS256' }, `{"exp":1${'0'.repeat(300)}}`, hmac(secret)))
tokenCase('exp that is too large in milliseconds', null, jws({ alg: 'HS256' }, '{"exp":1.7e308}', hmac(secret)))
tokenCase(
  'a whole character in two halves',
  null,
  jws({ alg: 'HS256' }, `{"exp":${NOW + 60},"x":"\\ud83d\\ude00"}`, hmac(secret)),
)
tokenCase('the iat of a token as text', 'token_claim', unbound({ iat: 'now' }))
tokenCase('exp long past', 'token_expired', unbound({ exp: 1 }))
tokenCase('exp past by more than the leeway', 'token_expired', unbound({ exp: NOW - 6 }))
tokenCase('exp past by the leeway', 'token_expired', unbound({ exp: NOW - 5 }))
tokenCase('exp past by less than the leeway', null, unbound({ exp: NOW - 4 }))
tokenCase('a fractional exp', null, unbound({ exp: NOW + 0.5 }))
tokenCase('exp in milliseconds', null, unbound({ exp: (NOW + 60) * 1000 }))
tokenCase('nbf to come', 'token_not_yet_valid', unbound({ nbf: NOW + 60 }))
tokenCase('nbf within the leeway', null, unbound({ nbf: NOW + 5 }))
tokenCase('nbf as text', 'token_claim', unbound({ nbf: 'now' }))
for (const [name, cnf] of [
  ['empty', {}],
  ['null', null],
  ['text', thumbprint(session)],
  ['number', { jkt: 1 }],
  ['short', { jkt: 'AAAA' }],
  ['padded', { jkt: `${thumbprint(session)}=` }],
  ['a key', { jwk: session.jwk }],
  ['certificate', { 'x5t#S256': thumbprint(session) }],
]) {
  tokenCase(`cnf of another form: ${name}`, 'token_claim', token({ cnf }), {
    proofs: [proof({}, {}, ecdsa(session), token({ cnf }))],
  })
}
tokenCase('embed that is a list', 'token_claim', unbound({ embed: [] }))
tokenCase('embed null', 'token_claim', unbound({ embed: null }))
tokenCase('an embedded result that is text', 'token_claim', unbound({ embed: { 'hcap:k': 'passed' } }))
tokenCase('a Fingerprint result without visitor', 'token_claim', unbound({ embed: { 'fp:k': { visits: [] } } }), {})
tokenCase('web and mobile at once', 'token_claim', unbound({ did: 'device' }))
tokenCase('did that is a number', 'token_claim', unbound({ embed: undefined, did: 1 }))
tokenCase('ip that is a number', 'token_claim', unbound({ ip: 1 }))

// ---- channel, binding ----

tokenCase('a mobile token where web is required', 'token_channel', MOBILE, { config: { channel: 'web' } })
tokenCase('a token of no channel where web is required', 'token_channel', unbound({ embed: undefined }), {
  config: { channel: 'web' },
})
add('a web token where web is required', null, { config: { channel: 'web' } })
add('a web token where mobile is required', 'token_channel', { config: { channel: 'mobile' } })
const pay = (data) => sha256(data).toString('base64')
const BOUND = unbound({ pay: pay('Bearer user') })
tokenCase('bound to the data of the request', null, BOUND, { binding: 'Bearer user' })
tokenCase('bound to other data', 'binding_mismatch', BOUND, { binding: 'Bearer other' })
tokenCase('bound, and the data is empty', 'binding_mismatch', BOUND, { binding: '' })
tokenCase('bound, and nothing to compare with', null, BOUND)
tokenCase('not bound, and must be', 'binding_missing', MOBILE, { binding: 'Bearer user' })
tokenCase('the data to bind to is missing', 'binding_data_missing', BOUND, { config: { require_binding: true } })
tokenCase('pay in base64url', 'token_claim', unbound({ pay: b64u(Buffer.alloc(32, 0xfb)) }), { binding: 'x' })
tokenCase('pay without padding', 'token_claim', unbound({ pay: pay('Bearer user').replace('=', '') }), {
  binding: 'Bearer user',
})
tokenCase('pay of another length', 'token_claim', unbound({ pay: Buffer.alloc(31).toString('base64') }), {
  binding: 'x',
})
tokenCase('pay in hex', 'token_claim', unbound({ pay: sha256('Bearer user').toString('hex') }), {
  binding: 'Bearer user',
})
tokenCase('pay that is the data itself', 'token_claim', unbound({ pay: 'Bearer user' }), { binding: 'Bearer user' })

// ---- the token as Authorization: DPoP (RFC 9449 section 7.1) ----

const credentials = (...values) => ({ tokens: [], headers: values.map((value) => ['Authorization', value]) })
add('the token by scheme', null, credentials(`DPoP ${GOOD}`))
add('the token by scheme in other letters', null, credentials(`dpop  ${GOOD}`))
add('the token by scheme without proof', 'proof_missing', { ...credentials(`DPoP ${GOOD}`), proofs: [] })
add('the token by scheme without proof where it is optional', 'proof_missing', {
  ...credentials(`DPoP ${GOOD}`),
  proofs: [],
  config: { proof: 'optional' },
})
add('an unbound token by scheme', 'key_binding_missing', {
  ...credentials(`DPoP ${MOBILE}`),
  proofs: [],
  config: { proof: 'optional' },
})
add('a token in both headers', 'token_repeated', { ...credentials(`DPoP ${GOOD}`), tokens: [GOOD] })
add('two tokens by scheme', 'token_repeated', credentials(`DPoP ${GOOD}`, `DPoP ${GOOD}`))
add('the token by scheme and other credentials', 'token_repeated', credentials('Basic eDp5', `DPoP ${GOOD}`))
add('the token in its header and credentials of the user', null, { headers: [['Authorization', 'Bearer user']] })
add('a scheme without a token', 'token_malformed', credentials('DPoP'))
add('a bound token as bearer', 'token_missing', credentials(`Bearer ${GOOD}`))
add('a bound token as bearer without proof', 'token_missing', { ...credentials(`Bearer ${GOOD}`), proofs: [] })
add('an unbound token as bearer', 'token_missing', { ...credentials(`Bearer ${MOBILE}`), proofs: [] })
add('a scheme that only begins like it', 'token_missing', credentials(`DPoPx ${GOOD}`))
add('the scheme and a tab', 'token_missing', credentials(`DPoP\t${GOOD}`))
add('no token and two proofs', 'proof_repeated', { tokens: [], proofs: [proof(), proof()] })

// ---- proof: presence ----

add('no proof for a bound token', 'proof_missing', { proofs: [] })
add('no proof where it is optional', null, { proofs: [], config: { proof: 'optional' } })
add('no proof where one is required', 'proof_missing', { proofs: [], config: { proof: 'required' } })
add('a proof where one is required', null, { config: { proof: 'required' } })
add('two proofs', 'proof_repeated', { proofs: [proof(), proof()] })
add('a bad proof where it is optional', 'proof_signature', {
  proofs: [proof({}, {}, ecdsa(stranger))],
  config: { proof: 'optional' },
})
tokenCase('a token without cnf where a proof is required', 'key_binding_missing', MOBILE, {
  config: { proof: 'required' },
})
tokenCase('a proof with a token that is bound to no key', 'key_binding_missing', MOBILE, {
  proofs: [proof({}, {}, ecdsa(session), MOBILE)],
})

// ---- proof: form, header, key, signature ----

proofCase('an empty proof', 'proof_malformed', '')
proofCase('a garbled proof', 'proof_malformed', 'a.b.c')
proofCase('two proofs in one header', 'proof_malformed', `${proof()}, ${proof()}`)
proofCase('a proof of two parts', 'proof_malformed', proof().split('.').slice(0, 2).join('.'))
proofCase('an oversized proof', 'proof_too_large', proof({ pad: 'x'.repeat(8192) }))
proofCase(
  'the longest proof',
  null,
  ofLength(8192, (pad) => proof({ pad })),
)
proofCase(
  'a proof that is a little too long',
  'proof_too_large',
  ofLength(8194, (pad) => proof({ pad })),
)
proofCase('the token in place of the proof', 'proof_type', GOOD)
proofCase('no typ', 'proof_type', proof({}, { typ: undefined }))
proofCase('typ JWT', 'proof_type', proof({}, { typ: 'JWT' }))
proofCase('typ in upper case', 'proof_type', proof({}, { typ: 'DPOP+JWT' }))
proofCase(
  'proof alg none',
  'proof_algorithm',
  proof({}, { alg: 'none' }, () => ''),
)
proofCase('proof alg none with a good signature', 'proof_algorithm', proof({}, { alg: 'none' }))
proofCase(
  'HS256 with the public key as secret',
  'proof_algorithm',
  proof({}, { alg: 'HS256' }, hmac(session.publicKey.export({ format: 'pem', type: 'spki' }))),
)
proofCase(
  'HS256 with a symmetric jwk',
  'proof_algorithm',
  proof({}, { alg: 'HS256', jwk: { kty: 'oct', k: b64u(otherSecret) } }, hmac(otherSecret)),
)
proofCase(
  'RS256',
  'proof_algorithm',
  proof({}, { alg: 'RS256', jwk: rsa.publicKey.export({ format: 'jwk' }) }, rs256(rsa)),
)
proofCase(
  'ES384',
  'proof_algorithm',
  proof({}, { alg: 'ES384', jwk: p384.jwk }, (input) =>
    sign('sha384', Buffer.from(input), { key: p384.privateKey, dsaEncoding: 'ieee-p1363' }),
  ),
)
proofCase('ES256 with a P-384 key', 'proof_key', proof({}, { jwk: p384.jwk }, ecdsa(p384)))
proofCase('a secp256k1 key', 'proof_key', proof({}, { jwk: { ...session.jwk, crv: 'secp256k1' } }))
proofCase('no jwk', 'proof_key', proof({}, { jwk: undefined }))
proofCase('jwk as text', 'proof_key', proof({}, { jwk: JSON.stringify(session.jwk) }))
proofCase('kid in place of jwk', 'proof_key', proof({}, { jwk: undefined, kid: thumbprint(session) }))
proofCase('an RSA jwk', 'proof_key', proof({}, { jwk: rsa.publicKey.export({ format: 'jwk' }) }))
proofCase('a symmetric jwk', 'proof_private_key', proof({}, { jwk: { kty: 'oct', k: b64u(otherSecret) } }))
proofCase('a jwk with its private part', 'proof_private_key', proof({}, { jwk: session.private }))
proofCase('a jwk with an empty private part', 'proof_private_key', proof({}, { jwk: { ...session.jwk, d: '' } }))
proofCase('a point that is not on the curve', 'proof_key', proof({}, { jwk: { ...session.jwk, y: session.jwk.x } }))
proofCase(
  'the point zero',
  'proof_key',
  proof({}, { jwk: { ...session.jwk, x: b64u(Buffer.alloc(32)), y: b64u(Buffer.alloc(32)) } }),
)
proofCase('a short coordinate', 'proof_key', proof({}, { jwk: { ...session.jwk, x: 'AAAA' } }))
proofCase('a jwk without y', 'proof_key', proof({}, { jwk: { ...session.jwk, y: undefined } }))
proofCase('a padded coordinate', 'proof_key', proof({}, { jwk: { ...session.jwk, x: `${session.jwk.x}=` } }))
proofCase('a key for encryption', 'proof_key', proof({}, { jwk: { ...session.jwk, use: 'enc' } }))
proofCase('a key for signing only', 'proof_key', proof({}, { jwk: { ...session.jwk, key_ops: ['sign'] } }))
proofCase('a key for another algorithm', 'proof_key', proof({}, { jwk: { ...session.jwk, alg: 'ES512' } }))
proofCase('a jwk with a symmetric key', 'proof_private_key', proof({}, { jwk: { ...session.jwk, k: 'AAAA' } }))
proofCase('proof with crit', 'proof_critical_header', proof({}, { crit: ['exp'], exp: 1 }))
proofCase(
  'a header that names jwk twice',
  'proof_duplicate_member',
  jws(JSON.stringify(HEADER).replace('"jwk"', '"jwk":{},"jwk"'), claimsFor(GOOD), ecdsa(session)),
)
proofCase('signed by another key than jwk', 'proof_signature', proof({}, {}, ecdsa(stranger)))
proofCase('a DER signature', 'proof_signature', proof({}, {}, ecdsa(session, 'der')))
proofCase(
  'a proof with an empty signature',
  'proof_signature',
  proof({}, {}, () => ''),
)
proofCase(
  'a proof with a short signature',
  'proof_signature',
  proof({}, {}, (input) => ecdsa(session)(input).subarray(0, 63)),
)
proofCase(
  'a proof with a long signature',
  'proof_signature',
  proof({}, {}, (input) => Buffer.concat([ecdsa(session)(input), Buffer.alloc(1)])),
)
proofCase(
  'a signature of zeros',
  'proof_signature',
  proof({}, {}, () => Buffer.alloc(64)),
)
proofCase(
  'a signature with r = 0',
  'proof_signature',
  proof({}, {}, (input) => Buffer.concat([Buffer.alloc(32), ecdsa(session)(input).subarray(32)])),
)
proofCase(
  'a signature of the greatest numbers',
  'proof_signature',
  proof({}, {}, () => Buffer.alloc(64, 0xff)),
)
proofCase(
  'claims that were altered',
  'proof_signature',
  proof().replace(/\.[^.]*\./, `.${b64u(json(claimsFor(GOOD)))}.`),
)

// ---- proof: claims ----

proofCase('claims that are not JSON', 'proof_malformed', rawProof('htm'))
proofCase('claims in a list', 'proof_malformed', rawProof('[]'))
proofCase(
  'a proof that names a claim twice',
  'proof_duplicate_member',
  rawProof(JSON.stringify(claimsFor(GOOD)).replace('{', '{"htm":"GET",')),
)
for (const claim of ['jti', 'htm', 'htu', 'iat']) {
  proofCase(`no ${claim}`, 'proof_claim', proof({ [claim]: undefined }))
  proofCase(`${claim} in a list`, 'proof_claim', proof({ [claim]: [claimsFor(GOOD)[claim]] }))
  proofCase(`${claim} null`, 'proof_claim', proof({ [claim]: null }))
  if (claim !== 'iat') proofCase(`an empty ${claim}`, 'proof_claim', proof({ [claim]: '' }))
}
proofCase('a long jti', 'proof_claim', proof({ jti: 'x'.repeat(257) }))
proofCase('the longest jti', null, proof({ jti: 'x'.repeat(256) }))
proofCase('a jti of more bytes than characters', 'proof_claim', proof({ jti: 'é'.repeat(129) }))
for (const [name, change] of [
  ['iat of four hundred digits', ['"iat":1800000000', `"iat":1${'0'.repeat(400)}`]],
  ['exp of four hundred digits', ['{', `{"exp":1${'0'.repeat(400)},`]],
  ['nbf beyond all numbers', ['{', '{"nbf":-1e999,']],
  ['a nonce beyond all numbers', ['{', '{"nonce":1e999,']],
  ['half a character in jti', ['"jti":"', '"jti":"\\ud800']],
  ['half a character in nonce', ['{', '{"nonce":["\\udc00"],']],
  ['half a character in the name of a claim', ['{', '{"\\ud83d":1,']],
]) {
  proofCase(`proof: ${name}`, 'proof_malformed', rawProof(JSON.stringify(claimsFor(GOOD)).replace(...change)))
}
proofCase(
  'proof: claims in UTF-16',
  'proof_malformed',
  rawProof(Buffer.from(JSON.stringify(claimsFor(GOOD)), 'utf16le')),
)
proofCase('proof: iat that is too large in milliseconds', 'proof_from_future', proof({ iat: 1e308 }))
proofCase('proof: exp that is too large in milliseconds', null, proof({ exp: 1e308 }))
proofCase('iat as text', 'proof_claim', proof({ iat: String(NOW) }))
proofCase('a negative iat', 'proof_claim', proof({ iat: -1 }))
proofCase('a fractional iat', null, proof({ iat: NOW - 0.5 }))
proofCase('a relative htu', 'proof_claim', proof({ htu: '/shapes' }))
proofCase('htu of another scheme', 'proof_claim', proof({ htu: 'ftp://api.example.com/shapes' }))
proofCase('htu with user information', 'proof_claim', proof({ htu: 'https://user@api.example.com/shapes' }))
proofCase('ath that is a number', 'proof_claim', proof({ ath: 1 }))
proofCase('msgs that is a number', 'proof_claim', proof({ msgs: 1 }), { body: '' })
proofCase('msgs that is a number where it is ignored', 'proof_claim', proof({ msgs: 1 }), {
  config: { message: 'ignored' },
})
proofCase('htq that is empty', 'proof_claim', proof({ htq: '' }))

// ---- proof: does it fit the request? ----

proofCase('another method', 'proof_method', proof({ htm: 'GET' }))
proofCase('the method in lower case', 'proof_method', proof({ htm: 'post' }))
proofCase('a good GET', null, proof({ htm: 'GET' }), { method: 'GET' })
for (const [name, htu] of [
  ['scheme', 'http://api.example.com/shapes'],
  ['host', 'https://evil.example/shapes'],
  ['parent domain', 'https://example.com/shapes'],
  ['subdomain', 'https://api.example.com.evil.example/shapes'],
  ['port', 'https://api.example.com:8443/shapes'],
  ['path', 'https://api.example.com/circles'],
  ['path, longer', 'https://api.example.com/shapes/1'],
  ['path, slash', 'https://api.example.com/shapes/'],
  ['path, case', 'https://api.example.com/Shapes'],
  ['no path', 'https://api.example.com'],
  ['dot at the end of the host', 'https://api.example.com./shapes'],
  ['slashes', 'https://api.example.com//shapes'],
]) {
  proofCase(`another URL: ${name}`, 'proof_url', proof({ htu }))
}
for (const [name, htu] of [
  ['host in upper case', 'HTTPS://API.example.COM/shapes'],
  ['default port', 'https://api.example.com:443/shapes'],
  ['a query', 'https://api.example.com/shapes?x=1'],
  ['a fragment', 'https://api.example.com/shapes#x'],
  ['dot segments', 'https://api.example.com/x/../shapes'],
  ['an encoded letter', 'https://api.example.com/%73hapes'],
]) {
  proofCase(`the same URL with ${name}`, null, proof({ htu }))
}
for (const [htu, requested, error] of [
  ['/%7Eme', '/~me', null],
  ['/~me', '/%7eme', null],
  ['/a%2fb', '/a%2Fb', null],
  ['/a%2fb', '/a/b', 'proof_url'],
  ['/a%252fb', '/a%2fb', 'proof_url'],
  ['/%', '/%', 'proof_claim'],
  ['/shapes', '/shapes%', 'proof_url'],
  ['/a%4', '/a%4', 'proof_claim'],
  ['/a//../b', '/b', 'proof_url'],
  ['/a//../b', '/a/b', null],
  ['/a//b/../c', '/a/c', 'proof_url'],
  ['/a//b/../c', '/a//c', null],
  ['/a/.//b', '/a/b', 'proof_url'],
  ['/a/.//b', '/a//b', null],
  ['/..', '//', 'proof_url'],
  ['/..', '/', null],
  ['//', '//', null],
  ['/./', '/', null],
  ['/a/%2e%2E', '/', null],
  ['/a/..;/b', '/b', 'proof_url'],
  ['/a\\b', '/a/b', 'proof_claim'],
  ['/é', '/%C3%A9', 'proof_claim'],
  ['/%C3%A9', '/%c3%a9', null],
]) {
  const url = (path) => `https://api.example.com${path}`
  proofCase(`htu ${htu} for ${requested}`, error, proof({ htu: url(htu) }), { url: url(requested) })
}
// A request with dot segments is not one that a browser sends: no proof is for it.
for (const path of [
  '/x/../shapes',
  '/x/%2e%2e/shapes',
  '/x/.%2E/shapes',
  '/./shapes',
  '/%2e/shapes',
  '/shapes/..',
  '/shapes/.',
]) {
  proofCase(`a request for ${path}`, 'proof_url', proof(), { url: `https://api.example.com${path}` })
  proofCase(
    `a request for ${path}, and the same in the proof`,
    'proof_url',
    proof({ htu: `https://api.example.com${path}` }),
    {
      url: `https://api.example.com${path}`,
    },
  )
}
proofCase('dots that are no dot segments', null, proof({ htu: 'https://api.example.com/.x/x./...' }), {
  url: 'https://api.example.com/.x/x./...?/../x',
})

// The request target that a server received must not lead to another server, whatever is in it.
const SHOP = 'https://api.shop.co'
for (const [publicUrl, target, htu, error] of [
  [SHOP, '/shapes', 'https://api.shop.co/shapes', null],
  [SHOP, '/shapes?x=1', 'https://api.shop.co/shapes', null],
  [`${SHOP}/`, '/shapes', 'https://api.shop.co/shapes', null],
  ['HTTPS://API.shop.CO:443', '/shapes', 'https://api.shop.co/shapes', null],
  [`${SHOP}/v1`, '/shapes', 'https://api.shop.co/v1/shapes', null],
  [`${SHOP}/v1/`, '/', 'https://api.shop.co/v1/', null],
  [`${SHOP}/v1/`, '/shapes', 'https://api.shop.co/shapes', 'proof_url'],
  ['http://[::1]:8080', '/shapes', 'http://[0:0:0:0:0:0:0:1]:8080/shapes', null],
  [SHOP, '.evil.example/shapes', 'https://api.shop.co.evil.example/shapes', 'proof_url'],
  [SHOP, 'm/shapes', 'https://api.shop.com/shapes', 'proof_url'],
  [SHOP, ':8443/shapes', 'https://api.shop.co:8443/shapes', 'proof_url'],
  [SHOP, 'm://shapes', 'https://api.shop.com//shapes', 'proof_url'],
  [SHOP, 'mpany://x/y', 'https://api.shop.company//x/y', 'proof_url'],
  [SHOP, '@evil.example/shapes', 'https://evil.example/shapes', 'proof_url'],
  [SHOP, '@evil.example/shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '//evil.example/shapes', 'https://evil.example/shapes', 'proof_url'],
  [SHOP, '//evil.example/shapes', 'https://api.shop.co//evil.example/shapes', 'proof_url'],
  [SHOP, '//shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, 'https://api.shop.co/shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, 'https://evil.example/shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '', 'https://api.shop.co/', 'proof_url'],
  [SHOP, '*', 'https://api.shop.co/', 'proof_url'],
  [SHOP, '?x', 'https://api.shop.co/', 'proof_url'],
  [SHOP, '/shapes#x', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '/shapes x', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '/shapes?é', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '/public/../shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '/public/%2e%2e/shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [`${SHOP}/v1`, '/../shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '\\shapes', 'https://api.shop.co/shapes', 'proof_url'],
  [SHOP, '/\\evil.example/shapes', 'https://evil.example/shapes', 'proof_url'],
]) {
  const received = { public_url: publicUrl, target }
  proofCase(`target ${JSON.stringify(target)} at ${publicUrl}, htu ${htu}`, error, proof({ htu }), { received })
}

// ---- proof: the query, which htu does not cover ----

const withQuery = (name, error, query, htq, more = {}) =>
  proofCase(`query: ${name}`, error, proof({ htq }), { url: `${URL}${query}`, ...more })
const hashOf = (text) => b64u(sha256(text))
const QUERY_REQUIRED = { config: { query: 'required' } }
withQuery('none, and no htq', null, '', undefined, QUERY_REQUIRED)
withQuery('empty, and no htq', null, '?', undefined, QUERY_REQUIRED)
withQuery('its hash', null, '?to=alice&amount=1', hashOf('to=alice&amount=1'))
withQuery('its hash where it is required', null, '?to=alice&amount=1', hashOf('to=alice&amount=1'), QUERY_REQUIRED)
withQuery('its hash, and question marks in it', null, '?a?b?', hashOf('a?b?'), QUERY_REQUIRED)
withQuery('the hash of nothing for none', null, '', hashOf(''), QUERY_REQUIRED)
withQuery('another query', 'query_mismatch', '?to=mallory&amount=9999', hashOf('to=alice&amount=1'))
withQuery('the same with an escape', 'query_mismatch', '?to=%61lice&amount=1', hashOf('to=alice&amount=1'))
withQuery('one where the proof was made for none', 'query_missing', '?to=mallory', undefined, QUERY_REQUIRED)
withQuery('one where nothing is required', null, '?to=mallory', undefined)
withQuery('none where the proof was made for one', 'query_mismatch', '', hashOf('to=alice'))
withQuery('the hash with the question mark', 'query_mismatch', '?to=alice', hashOf('?to=alice'))
withQuery('the hash with padding', 'query_mismatch', '?to=alice', `${hashOf('to=alice')}=`)
withQuery('what is there is ignored', null, '?to=alice', 'whatever', { config: { query: 'ignored' } })
withQuery('the request was received as a target', null, '', hashOf('to=alice'), {
  ...QUERY_REQUIRED,
  received: { public_url: 'https://api.example.com/', target: '/shapes?to=alice' },
})
proofCase('a query in the request', null, proof(), { url: `${URL}?page=2` })
proofCase('an encoded slash', 'proof_url', proof({ htu: 'https://api.example.com/a/b' }), {
  url: 'https://api.example.com/a%2Fb',
})
proofCase('a request whose URL nobody knows', 'proof_url', proof(), { url: '' })
proofCase('as old as is allowed', null, proof({ iat: NOW - 60 }))
proofCase('older than is allowed', 'proof_too_old', proof({ iat: NOW - 61 }))
proofCase('ages old', 'proof_too_old', proof({ iat: 0 }))
proofCase('as far ahead as is allowed', null, proof({ iat: NOW + 15 }))
proofCase('further ahead than is allowed', 'proof_from_future', proof({ iat: NOW + 16 }))
proofCase('iat in milliseconds', 'proof_from_future', proof({ iat: NOW * 1000 }))
proofCase('a proof that says it has expired', 'proof_too_old', proof({ exp: NOW }))
proofCase('a proof that is not valid yet', 'proof_from_future', proof({ nbf: NOW + 16 }))
proofCase('a proof that becomes valid as late as is allowed', null, proof({ nbf: NOW + 15 }))
proofCase('no ath', 'proof_token_hash_missing', proof({ ath: undefined }))
proofCase('ath of another token', 'proof_token_hash', proof({ ath: b64u(sha256(MOBILE)) }))
proofCase('ath with padding', 'proof_token_hash', proof({ ath: `${b64u(sha256(GOOD))}=` }))
proofCase('ath in hex', 'proof_token_hash', proof({ ath: sha256(GOOD).toString('hex') }))
proofCase('the token itself as ath', 'proof_token_hash', proof({ ath: GOOD }))
proofCase('ath of the signature alone', 'proof_token_hash', proof({ ath: b64u(sha256(GOOD.split('.')[2])) }))
proofCase("another session's key and proof", 'proof_key_mismatch', proof({}, { jwk: stranger.jwk }, ecdsa(stranger)))

// ---- proof: replay and nonce ----

const once = proof()
const onceWithNonce = proof({ nonce: 'n' })
add('the same proof again', 'proof_replayed', { proofs: [once], earlier: [request([once])] })
const twin = { jti: 'the same for both' }
add('the same jti in a new proof', 'proof_replayed', {
  proofs: [proof({ ...twin, iat: NOW - 1 })],
  earlier: [request([proof(twin)])],
})
const strangerToken = token({ cnf: { jkt: thumbprint(stranger) } })
add("another session's jti", null, {
  proofs: [proof(twin)],
  earlier: [request([proof(twin, { jwk: stranger.jwk }, ecdsa(stranger), strangerToken)], [strangerToken])],
})
add('a proof that was refused before is not used up', null, {
  proofs: [once],
  earlier: [{ ...request([once]), url: 'https://api.example.com/circles' }],
})
const NONCE_REQUIRED = { nonce: 'required' }
add('the same nonce again', 'nonce_reused', {
  proofs: [proof({ nonce: 'n' })],
  earlier: [request([proof({ nonce: 'n' })])],
  config: NONCE_REQUIRED,
})
add('the same nonce again, as an object', 'nonce_reused', {
  proofs: [proof({ nonce: { a: 1 } })],
  earlier: [request([proof({ nonce: { a: 1 } })])],
  config: NONCE_REQUIRED,
})
add('the same nonce again, which nobody demanded', null, {
  proofs: [proof({ nonce: 'n' })],
  earlier: [request([proof({ nonce: 'n' })])],
})
add('the same proof with a nonce again, which nobody demanded', 'proof_replayed', {
  proofs: [onceWithNonce],
  earlier: [request([onceWithNonce])],
})
add('the nonce that the server gave, again', 'nonce_reused', {
  proofs: [proof({ nonce: 'given' })],
  earlier: [request([proof({ nonce: 'given' })])],
  config: { accepted_nonce: 'given' },
  challenge: 'use_dpop_nonce',
})
add('the nonce that the server gave, again, where it may be used again', null, {
  proofs: [proof({ nonce: 'given' })],
  earlier: [request([proof({ nonce: 'given' })])],
  config: { accepted_nonce: 'given', nonce: 'ignored' },
})
add('a nonce that is null where it is required', 'proof_nonce_missing', {
  proofs: [proof({ nonce: null })],
  config: NONCE_REQUIRED,
})
add('the same nonce where it is ignored', null, {
  proofs: [proof({ nonce: 'n' })],
  earlier: [request([proof({ nonce: 'n' })])],
  config: { nonce: 'ignored' },
})
add('a number and its text are two nonces', null, {
  proofs: [proof({ nonce: '1' })],
  earlier: [request([proof({ nonce: 1 })])],
  config: NONCE_REQUIRED,
})
add('no nonce where it is required', 'proof_nonce_missing', { config: { nonce: 'required' } })
add('a nonce where it is required', null, { proofs: [proof({ nonce: 'n' })], config: { nonce: 'required' } })
add('a nonce that the server did not give', 'proof_nonce', {
  proofs: [proof({ nonce: 'mine' })],
  config: { accepted_nonce: 'given' },
})
add('no nonce where the server gave one', 'proof_nonce_missing', { config: { accepted_nonce: 'given' } })
add('the nonce that the server gave', null, {
  proofs: [proof({ nonce: 'given' })],
  config: { accepted_nonce: 'given' },
})

// ---- proof: message ----

const BODY = '{"shape":"circle"}'
const withMessage = (name, error, msgs, more = {}) =>
  proofCase(`message: ${name}`, error, proof({ msgs }), { body: BODY, ...more })
withMessage('its hash', null, b64u(sha256(BODY)))
withMessage('its signature', null, b64u(ecdsa(session)(BODY)))
withMessage('the hash of an empty body', null, b64u(sha256('')), { body: '' })
withMessage('another body', 'message_mismatch', b64u(sha256(BODY)), { body: '{"shape":"square"}' })
withMessage('another body, signed', 'message_mismatch', b64u(ecdsa(session)(BODY)), { body: '{"shape":"square"}' })
withMessage('an empty body in its place', 'message_mismatch', b64u(sha256(BODY)), { body: '' })
withMessage('signed by another key', 'message_mismatch', b64u(ecdsa(stranger)(BODY)))
withMessage('a DER signature', 'message_mismatch', b64u(ecdsa(session, 'der')(BODY)))
withMessage('the hash in hex', 'message_mismatch', sha256(BODY).toString('hex'))
withMessage('the hash with padding', 'message_mismatch', `${b64u(sha256(BODY))}=`)
withMessage('the hash cut short', 'message_mismatch', b64u(sha256(BODY).subarray(0, 31)))
withMessage('the body itself', 'message_mismatch', BODY)
withMessage('of the signed hash', 'message_mismatch', b64u(ecdsa(session)(sha256(BODY))))
withMessage('none where it is required', 'message_missing', undefined, { config: { message: 'required' } })
withMessage('what is there is ignored', null, 'whatever', { config: { message: 'ignored' } })
withMessage('the body was not read', 'body_unread', b64u(sha256(BODY)), { body: null })

// ---- keysets: RS256 and ES256, by kid ----

const es = (change, signer = ecdsa(accountEc)) => jws({ alg: 'ES256', kid: 'ec', ...change }, unboundClaims(), signer)
const rs = (change, signer = rs256(rsa)) => jws({ alg: 'RS256', kid: 'rsa', ...change }, unboundClaims(), signer)
const keyset = { config: { keys: 'keyset' } }
tokenCase('ES256 by the keyset', null, es({}), keyset)
tokenCase('RS256 by the keyset', null, rs({}), keyset)
tokenCase('a named key and a token without kid', null, es({ kid: undefined }), keyset)
tokenCase('an unknown kid', 'token_unknown_key', es({ kid: 'other' }), keyset)
tokenCase('kid of the RSA key for ES256', 'token_unknown_key', es({ kid: 'rsa' }), keyset)
tokenCase('ES256 by a stranger', 'token_signature', es({}, ecdsa(stranger)), keyset)
tokenCase('ES256 in DER', 'token_signature', es({}, ecdsa(accountEc, 'der')), keyset)
tokenCase(
  'HS256 with the PEM of the RSA key',
  'token_algorithm',
  jws({ alg: 'HS256', kid: 'rsa' }, unboundClaims(), hmac(rsa.publicKey.export({ format: 'pem', type: 'spki' }))),
  keyset,
)
tokenCase(
  'HS256 with the PEM of the EC key',
  'token_algorithm',
  jws({ alg: 'HS256', kid: 'ec' }, unboundClaims(), hmac(accountEc.publicKey.export({ format: 'pem', type: 'spki' }))),
  keyset,
)
tokenCase('ES256 signature as RS256', 'token_signature', rs({}, ecdsa(accountEc)), keyset)
tokenCase('PS256 by the RSA key', 'token_algorithm', rs({ alg: 'PS256' }), keyset)
tokenCase('HS256 where keyset and secret are set', null, MOBILE, { config: { keys: 'both' } })
tokenCase('HS256 where it is not allowed', 'token_algorithm', MOBILE, {
  config: { keys: 'both', algorithms: ['ES256'] },
})
tokenCase('RS256 where it is not allowed', 'token_algorithm', rs({}), {
  config: { keys: 'both', algorithms: ['ES256'] },
})

// ---- who made the token, for whom, and by what means ----

const ISSUER = 'https://service.example.com/site'
const from = (iss) => unbound({ iss })
const forApi = (aud) => unbound({ aud })
tokenCase('the issuer that is asked for', null, from(ISSUER), { config: { issuer: ISSUER } })
tokenCase('another issuer', 'token_issuer', from(`${ISSUER}/`), { config: { issuer: ISSUER } })
tokenCase('no issuer where one is asked for', 'token_issuer', from(undefined), { config: { issuer: ISSUER } })
tokenCase('issuers in a list', 'token_issuer', from([ISSUER]), { config: { issuer: ISSUER } })
tokenCase('an issuer where none is asked for', null, from('anybody'))
tokenCase('the audience that is asked for', null, forApi('api'), { config: { audience: 'api' } })
tokenCase('the audience among others', null, forApi(['other', 'api']), { config: { audience: 'api' } })
tokenCase('another audience', 'token_audience', forApi('API'), { config: { audience: 'api' } })
tokenCase('other audiences', 'token_audience', forApi(['a', ['api']]), { config: { audience: 'api' } })
tokenCase('no audience where one is asked for', 'token_audience', forApi(undefined), { config: { audience: 'api' } })
const debug = unbound({ embed: { 'debug:ci': {} } })
tokenCase('a debug token', 'token_debug', debug)
tokenCase('a debug token next to a check', 'token_debug', unbound({ embed: { 'hcap:k': {}, 'debug:ci': {} } }))
tokenCase('a debug token where they are allowed', null, debug, { config: { allow_debug_tokens: true } })

// ---- bound to the value of a header ----

const boundTo = (data) => unbound({ pay: sha256(data).toString('base64') })
const byHeader = { bound_to_header: ['Authorization'] }
const alice = ['Authorization', 'Bearer alice']
tokenCase('bound to a header that is there', null, boundTo('Bearer alice'), { config: byHeader, headers: [alice] })
tokenCase('bound to a header that is missing', 'binding_data_missing', boundTo('Bearer alice'), { config: byHeader })
tokenCase('bound to another value of a header', 'binding_mismatch', boundTo('Bearer bob'), {
  config: byHeader,
  headers: [alice],
})
tokenCase('bound to nothing where a header is asked for', 'binding_missing', unbound({}), {
  config: byHeader,
  headers: [alice],
})
tokenCase('bound to nothing, and the header is missing', 'binding_data_missing', unbound({}), { config: byHeader })
tokenCase('bound to two headers', null, boundTo('Bearer alice42'), {
  config: { bound_to_header: ['Authorization', 'X-User'] },
  headers: [alice, ['X-User', '42']],
})

// ---- encrypted tokens ----

function jwe(content, { key = jweSecret, header = {}, alter = (parts) => parts, contentKey = randomBytes(32) } = {}) {
  const seal = (sealKey, iv, aad, text) => {
    const cipher = createCipheriv(`aes-${sealKey.length * 8}-gcm`, sealKey, iv).setAAD(Buffer.from(aad))
    return [Buffer.concat([cipher.update(text), cipher.final()]), cipher.getAuthTag()]
  }
  const keyIv = randomBytes(12)
  const [wrapped, keyTag] = seal(key, keyIv, '', contentKey)
  const protectedHeader = b64u(
    json(merge({ alg: 'A256GCMKW', enc: 'A256GCM', cty: 'JWT', iv: b64u(keyIv), tag: b64u(keyTag) }, header)),
  )
  const iv = randomBytes(12)
  const [ciphertext, tag] = seal(contentKey, iv, protectedHeader, content)
  return alter([protectedHeader, b64u(wrapped), b64u(iv), b64u(ciphertext), b64u(tag)]).join('.')
}
const flip = (part) => b64u(Buffer.from(part, 'base64url').map((byte, index) => (index === 0 ? byte ^ 1 : byte)))
const encrypted = { config: { jwe: true } }
tokenCase('an encrypted token', null, jwe(MOBILE), encrypted)
tokenCase('a signed token where encrypted ones are known too', null, MOBILE, encrypted)
tokenCase('a signed token where encryption is required', 'token_not_encrypted', MOBILE, {
  config: { jwe: true, require_encryption: true },
})
tokenCase('an encrypted token where none is known', 'token_algorithm', jwe(MOBILE))
tokenCase('encrypted with another secret', 'token_decryption', jwe(MOBILE, { key: randomBytes(32) }), encrypted)
tokenCase(
  'encrypted, and signed with another secret',
  'token_signature',
  jwe(unboundToken({}, hmac(otherSecret))),
  encrypted,
)
tokenCase(
  'encrypted, and the content is altered',
  'token_decryption',
  jwe(MOBILE, { alter: ([a, b, c, d, e]) => [a, b, c, flip(d), e] }),
  encrypted,
)
tokenCase(
  'encrypted, and the tag is altered',
  'token_decryption',
  jwe(MOBILE, { alter: ([a, b, c, d, e]) => [a, b, c, d, flip(e)] }),
  encrypted,
)
tokenCase(
  'encrypted, and the tag is cut',
  'token_malformed',
  jwe(MOBILE, { alter: ([a, b, c, d, e]) => [a, b, c, d, e.slice(0, 8)] }),
  encrypted,
)
tokenCase(
  'encrypted, and the key is altered',
  'token_decryption',
  jwe(MOBILE, { alter: ([a, b, c, d, e]) => [a, flip(b), c, d, e] }),
  encrypted,
)
tokenCase(
  'encrypted, and the header is altered',
  'token_decryption',
  jwe(MOBILE, {
    alter: ([a, b, c, d, e]) => [b64u(Buffer.from(a, 'base64url').toString().replace('{', '{"x":1,')), b, c, d, e],
  }),
  encrypted,
)
tokenCase(
  'encrypted with a content key of 128 bits',
  'token_decryption',
  jwe(MOBILE, { contentKey: randomBytes(16) }),
  encrypted,
)
tokenCase('encrypted, and alg is dir', 'token_algorithm', jwe(MOBILE, { header: { alg: 'dir' } }), encrypted)
tokenCase('encrypted, and enc is A128GCM', 'token_algorithm', jwe(MOBILE, { header: { enc: 'A128GCM' } }), encrypted)
tokenCase('encrypted and compressed', 'token_algorithm', jwe(MOBILE, { header: { zip: 'DEF' } }), encrypted)
tokenCase('encrypted with crit', 'token_critical_header', jwe(MOBILE, { header: { crit: ['x'], x: 1 } }), encrypted)
tokenCase('encrypted, and iv is missing', 'token_malformed', jwe(MOBILE, { header: { iv: undefined } }), encrypted)
tokenCase('encrypted, and iv has another length', 'token_malformed', jwe(MOBILE, { header: { iv: 'AAAA' } }), encrypted)
tokenCase(
  'encrypted claims without a signature',
  'token_not_nested',
  jwe(json(unboundClaims()), { header: { cty: undefined } }),
  encrypted,
)
tokenCase('encrypted claims that say they are a token', 'token_malformed', jwe(json(unboundClaims())), encrypted)
tokenCase('encrypted twice', 'token_malformed', jwe(jwe(MOBILE)), encrypted)
tokenCase('encrypted alg none', 'token_algorithm', jwe(jws({ alg: 'none' }, unboundClaims(), () => '')), encrypted)
tokenCase('encrypted bytes that are no text', 'token_not_nested', jwe(Buffer.from([0xff])), encrypted)
tokenCase('five parts of garbage', 'token_malformed', 'a.b.c.d.e', encrypted)

function unboundClaims() {
  return merge(WEB, { cnf: undefined })
}

function unboundToken(change, signer) {
  return jws({ typ: 'JWT', alg: 'HS256' }, merge(unboundClaims(), change), signer)
}

/** What `make` makes of a text that brings it to this length. (Base64 has not every length.) */
function ofLength(length, make) {
  for (let size = Math.floor(length / 2); size < length; size++) {
    const text = make('x'.repeat(size))
    if (text.length === length) return text
  }
  throw new Error(`no text has the length ${length}`)
}

/** The same bytes, spelt with bits that do not count in the last character. */
function strayBits(text) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  return text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1)) + 1]
}

const data = {
  version: 1,
  about: 'Written by generate.mjs; README.md says what the members mean.',
  now: NOW,
  secret: secret.toString('base64'),
  jwe_secret: jweSecret.toString('base64url'),
  jwks: {
    keys: [
      { ...accountEc.jwk, kid: 'ec', use: 'sig' },
      { ...rsa.publicKey.export({ format: 'jwk' }), kid: 'rsa', alg: 'RS256' },
    ],
  },
  pem:
    accountEc.publicKey.export({ format: 'pem', type: 'spki' }) + rsa.publicKey.export({ format: 'pem', type: 'spki' }),
}
const names = cases.map(({ name }) => name)
const repeated = names.filter((name, index) => names.indexOf(name) !== index)
if (repeated.length > 0) throw new Error(`two cases are called: ${repeated.join(', ')}`)
const lines = Object.entries(data).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)},`)
writeFileSync(
  new globalThis.URL('cases.json', import.meta.url),
  `{\n${lines.join('\n')}\n"cases": [\n${cases.map((entry) => JSON.stringify(entry)).join(',\n')}\n]\n}\n`,
)
console.log(`${cases.length} cases, ${cases.filter(({ error }) => error !== null).length} of them to be refused`)
