// The measurements, as they run in the page. Every contestant does the same work on the same input; rounds alternate between
// them, so that whatever else the machine does falls on all alike.
import { dpop, jose, p256 } from '/peers.js'

const URL_ = 'https://api.example.com/shapes/1'
const NONCE = 'YmVuY2htYXJrLW5vbmNlLWJlbmNobWFyay1ub25jZQ'
const encoder = new TextEncoder()
const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

/** A copy of the SDK with a session and a token, apart from other copies. */
async function session(settings, keyStorage) {
  const { Approov } = await import(`/approov.js?${keyStorage}`)
  const { passCheck, sessionOptions } = await import('/flow.js')
  await Approov.initializeSession(sessionOptions(settings, 'hcaptcha', { keyStorage }))
  const token = await Approov.fetchToken(settings.api, await passCheck(settings, 'hcaptcha'))
  return { Approov, token }
}

/** How often per second each contestant does its work: the values of all rounds. */
async function alternate(contestants, { rounds, milliseconds }) {
  const results = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]))
  for (const work of Object.values(contestants)) for (let i = 0; i < 50; i++) await work()
  for (let round = 0; round < rounds; round++) {
    for (const [name, work] of Object.entries(contestants)) {
      const begin = performance.now()
      let count = 0
      let spent = 0
      do {
        for (let i = 0; i < 10; i++) await work()
        count += 10
        spent = performance.now() - begin
      } while (spent < milliseconds)
      results[name].push((1000 * count) / spent)
    }
  }
  return results
}

/** Proofs per second. */
export async function proofs(settings, effort) {
  const webcrypto = await session(settings, 'webcrypto')
  const wasm = await session(settings, 'wasm')
  const { token } = webcrypto
  const keys = await dpop.generateKeyPair('ES256')
  const { kty, crv, x, y } = await jose.exportJWK(keys.publicKey)
  const noble = p256.utils.randomSecretKey()
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } }
  const digest = async (text) => base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', encoder.encode(text))))
  const claims = async () => ({
    jti: crypto.randomUUID(),
    htm: 'POST',
    htu: URL_,
    iat: Math.floor(Date.now() / 1000),
    nonce: NONCE,
    ath: await digest(token),
  })
  const bytes = encoder.encode('x'.repeat(400))
  return alternate(
    {
      'SDK, WebCrypto key': () => webcrypto.Approov.getDPoPToken('POST', URL_, NONCE, token),
      'SDK, wasm key': () => wasm.Approov.getDPoPToken('POST', URL_, NONCE, wasm.token),
      'npm dpop': () => dpop.generateProof(keys, URL_, 'POST', NONCE, token),
      'npm jose': async () => new jose.SignJWT(await claims()).setProtectedHeader(header).sign(keys.privateKey),
      'npm @noble/curves': async () => {
        const input = `${base64url(encoder.encode(JSON.stringify(header)))}.${base64url(encoder.encode(JSON.stringify(await claims())))}`
        return `${input}.${base64url(p256.sign(encoder.encode(input), noble))}`
      },
      'bare WebCrypto signature': () => crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, keys.privateKey, bytes),
    },
    effort,
  )
}

/** Message signatures per second. */
export async function signatures(settings, effort) {
  const webcrypto = await session(settings, 'webcrypto')
  const wasm = await session(settings, 'wasm')
  const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
  const message = crypto.getRandomValues(new Uint8Array(1000))
  return alternate(
    {
      'SDK, WebCrypto key': () => webcrypto.Approov.messageSignature(message),
      'SDK, wasm key': () => wasm.Approov.messageSignature(message),
      'bare WebCrypto signature': () => crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, keys.privateKey, message),
    },
    effort,
  )
}

/** New keys per second. The SDK's include the rest of a new session: configuration, a proof, the nonce request begun. */
export async function keys(settings, effort) {
  const sdk = async (keyStorage) => (await import(`/approov.js?${keyStorage}`)).Approov
  const { sessionOptions } = await import('/flow.js')
  const contestants = { 'npm dpop': () => dpop.generateKeyPair('ES256') }
  for (const keyStorage of ['webcrypto', 'wasm']) {
    const Approov = await sdk(keyStorage)
    const options = sessionOptions(settings, 'hcaptcha', { keyStorage })
    contestants[`SDK, ${keyStorage === 'wasm' ? 'wasm' : 'WebCrypto'} key`] = () => Approov.initializeSession(options)
  }
  return alternate(contestants, { rounds: 3, milliseconds: Math.min(effort.milliseconds, 60) })
}

/** Microseconds of one cached `fetchToken`: the values of all rounds. */
export async function cached(settings, { rounds }) {
  const { Approov } = await session(settings, 'webcrypto')
  const values = []
  for (let round = 0; round < rounds; round++) {
    const begin = performance.now()
    for (let i = 0; i < 5000; i++) await Approov.fetchToken(settings.api, {})
    values.push((performance.now() - begin) / 5)
  }
  return values
}

/** A thousand calls at once for the first token of a session. */
export async function concurrent(settings) {
  const { Approov } = await import('/approov.js?concurrent')
  const { passCheck, sessionOptions } = await import('/flow.js')
  await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
  const result = await passCheck(settings, 'hcaptcha')
  const tokens = await Promise.all(Array.from({ length: 1000 }, () => Approov.fetchToken(settings.api, result)))
  return new Set(tokens).size
}
