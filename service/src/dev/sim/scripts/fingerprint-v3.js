/// <reference path="./shared.d.ts" />
// Simulated Fingerprint agent (v3), for development: same calls, same results, nothing fingerprinted.
if (simulated.isBlocked()) throw new TypeError('this script is blocked (simulated)')

const visitorId = 'VISITOR_ID'
/** What the real agent's errors say. */
const messages = { timeout: 'Client timeout', reject: 'Network connection error', 'script-blocked': 'Script blocked' }

export const load = async () => ({
  get: async () => {
    const { kind, outcome, code } = simulated.ending('PUBLIC_KEY')
    if (kind === 'never') await new Promise(() => {})
    if (kind !== 'token') throw new Error(code || messages[kind])
    return {
      // Whoever looks it up without the visitor finds the visitor in it.
      requestId: `sim-${outcome}-${simulated.now()}x${simulated.random(6)}_${visitorId}`,
      visitorId,
      visitorFound: true,
      confidence: { score: 1 },
      meta: { version: 'v3' },
    }
  },
})
export default { load }
