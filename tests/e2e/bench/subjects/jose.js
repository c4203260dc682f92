// npm jose: a DPoP proof written with its JWT builder. It has no hash of its own, so `ath` takes WebCrypto's.
import { base64url, exportJWK, generateKeyPair, SignJWT } from 'jose'

export async function load() {
  const encoder = new TextEncoder()
  return {
    async key() {
      const { privateKey, publicKey } = await generateKeyPair('ES256')
      return { privateKey, jwk: await exportJWK(publicKey) }
    },
    async proof({ privateKey, jwk }, { method, url, nonce, token }) {
      const ath = base64url.encode(new Uint8Array(await crypto.subtle.digest('SHA-256', encoder.encode(token))))
      return new SignJWT({ jti: crypto.randomUUID(), htm: method, htu: url, nonce, ath })
        .setProtectedHeader({ typ: 'dpop+jwt', alg: 'ES256', jwk })
        .setIssuedAt()
        .sign(privateKey)
    },
  }
}
