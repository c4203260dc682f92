// npm dpop: makes DPoP proofs, nothing else.
import { generateKeyPair, generateProof } from 'dpop'

export async function load() {
  return {
    key: () => generateKeyPair('ES256'),
    proof: (pair, { method, url, nonce, token }) => generateProof(pair, url, method, nonce, token),
  }
}
