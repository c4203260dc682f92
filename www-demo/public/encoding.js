// Base64url, hashes, signatures, and a look inside signed tokens (without verifying them: that is the API's work).

/** Unpadded base64url of bytes. */
export function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

const utf8 = (text) => new TextEncoder().encode(text)

/** Unpadded base64url of the SHA-256 of a text in UTF-8. */
export async function sha256(text) {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', utf8(text))))
}

/** Header and claims of a compact JWS; a token of another form (a JWE, say) is shown by its header. */
export function decode(token) {
  const parts = token.split('.')
  const json = (part) =>
    JSON.parse(
      new TextDecoder().decode(
        Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0)),
      ),
    )
  return parts.length === 3
    ? { header: json(parts[0]), claims: json(parts[1]) }
    : { header: json(parts[0]), encrypted: true }
}

/** A key pair of the page's own, as a thief would make it, with its thumbprint (RFC 7638). */
export async function makeKey() {
  const { privateKey, publicKey } = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, [
    'sign',
  ])
  const { crv, kty, x, y } = await crypto.subtle.exportKey('jwk', publicKey)
  const jwk = { crv, kty, x, y }
  return { privateKey, jwk, jkt: await sha256(JSON.stringify(jwk)) }
}

/** A DPoP proof (RFC 9449) by such a key, with all its claims right. */
export async function signProof({ privateKey, jwk }, { method, url, token, body }) {
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk }
  const claims = {
    jti: crypto.randomUUID(),
    htm: method,
    htu: url,
    iat: Math.floor(Date.now() / 1000),
    ath: await sha256(token),
    msgs: await sha256(body),
  }
  const text = [header, claims].map((part) => base64url(utf8(JSON.stringify(part)))).join('.')
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, privateKey, utf8(text))
  return `${text}.${base64url(new Uint8Array(signature))}`
}
