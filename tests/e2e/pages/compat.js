// Uses everything that the SDK has, under the page's content security policy, and writes what came of it into the title.
const violations = []
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
  violations.push(`${violatedDirective} ${blockedURI}`)
})

const { entry, api, apiUrl, session, result } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
const outcome = {}
try {
  const { Approov } = await import(entry)
  await Approov.initializeSession(session)
  const token = await Approov.fetchToken(api, result)
  const proof = await Approov.getDPoPToken('GET', apiUrl, crypto.randomUUID(), token)
  const response = await fetch(apiUrl, { headers: { 'Approov-Token': token, Dpop: proof } })
  outcome.plain = [response.status, (await response.json()).proof.accepted]
  outcome.expiries = Object.keys(await Approov.getExpiries()).sort()
  outcome.signature = (await Approov.messageSignature(new Uint8Array(8))).byteLength
  const apiFetch = Approov.createFetch({ origins: [new URL(apiUrl).origin] })
  const fetched = await apiFetch(apiUrl)
  outcome.fetched = [fetched.status, (await fetched.json()).proof.accepted]
} catch (error) {
  outcome.error = `${error.name}: ${error.message} (${error.cause})`
}
document.title = JSON.stringify({ ...outcome, violations })
