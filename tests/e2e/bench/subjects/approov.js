// This project's SDK, as the page would use it. Its key is the session's: making one is `initializeSession`, which also
// sends the nonce request; it does not wait for that.
export async function load({ file, settings, keyStorage }) {
  // The query makes a module, and so an SDK, of its own for each key store.
  const { Approov } = await import(`${file}?${keyStorage}`)
  const key = () => Approov.initializeSession({ ...settings.session, keyStorage })
  return {
    Approov,
    key,
    proof: (_, { method, url, nonce, token }) => Approov.getDPoPToken(method, url, nonce, token),
    sign: (_, message) => Approov.messageSignature(message),
  }
}
