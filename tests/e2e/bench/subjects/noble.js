// @noble/curves: P-256 in JavaScript, the alternative where there is no WebCrypto. The proof around it is written by hand.
import { p256 } from '@noble/curves/nist.js'
import { sha256 } from '@noble/hashes/sha2.js'

const encoder = new TextEncoder()
const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '')
const json = (value) => base64url(encoder.encode(JSON.stringify(value)))

export async function load() {
  return {
    key() {
      const { secretKey, publicKey } = p256.keygen()
      const point = p256.Point.fromBytes(publicKey).toBytes(false)
      const jwk = { kty: 'EC', crv: 'P-256', x: base64url(point.slice(1, 33)), y: base64url(point.slice(33)) }
      return { secretKey, header: json({ typ: 'dpop+jwt', alg: 'ES256', jwk }) }
    },
    proof({ secretKey, header }, { method, url, nonce, token }) {
      const claims = {
        jti: crypto.randomUUID(),
        htm: method,
        htu: url,
        iat: Math.floor(Date.now() / 1000),
        nonce,
        ath: base64url(sha256(encoder.encode(token))),
      }
      const input = `${header}.${json(claims)}`
      return `${input}.${base64url(p256.sign(encoder.encode(input), secretKey))}`
    },
    sign: ({ secretKey }, message) => p256.sign(message, secretKey),
  }
}
