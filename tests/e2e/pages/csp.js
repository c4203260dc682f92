// Does a whole flow under the page's content security policy, and writes what came of it into the title.
const violations = []
addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI, sample }) => {
  violations.push({ directive: violatedDirective, blocked: blockedURI, sample })
})

const { entry, api, session, result, provoke, forbidden } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
const outcome = {}
try {
  const { Approov } = await import(entry)
  await Approov.initializeSession(session)
  outcome.token = await Approov.fetchToken(api, result)
  outcome.proof = await Approov.getDPoPToken('GET', 'https://api.example.com/shapes', 'nonce', outcome.token)
  outcome.signature = (await Approov.messageSignature(new Uint8Array(8))).byteLength
  outcome.expiries = Object.keys(await Approov.getExpiries()).length
  if (provoke) outcome.evaluated = tryEval()
} catch (error) {
  outcome.error = `${error.name}: ${error.message}`
}
// Violations are reported in the order in which they happen: when that of a forbidden image is there, so are all before it.
/** @type {Promise<void>} */
/** @type {Promise<void>} */
const last = new Promise((resolve) => {
  addEventListener('securitypolicyviolation', ({ blockedURI }) => blockedURI === forbidden && resolve())
})
new Image().src = forbidden
await last
document.title = JSON.stringify({ ...outcome, violations: violations.filter(({ blocked }) => blocked !== forbidden) })

function tryEval() {
  try {
    return (0, eval)('true')
  } catch {
    return false
  }
}
