// Base64url, hashes, and a look inside signed tokens (without verifying them: that is the API's work).

/** Unpadded base64url of bytes. */
export function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

/** Unpadded base64url of the SHA-256 of a text in UTF-8. */
export async function sha256(text) {
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))))
}

/** Unpadded base64url of this many random bytes. */
export function randomText(length) {
  return base64url(crypto.getRandomValues(new Uint8Array(length)))
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
