// The engine's own signature with nothing around it: what bounds everyone who keeps the key in WebCrypto.
export async function load() {
  const algorithm = { name: 'ECDSA', hash: 'SHA-256' }
  return {
    key: () => crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify']),
    sign: ({ privateKey }, message) => crypto.subtle.sign(algorithm, privateKey, message),
  }
}
