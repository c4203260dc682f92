// Simulated Fingerprint agent, for development: same calls, same results, nothing fingerprinted.
const params = new URL(import.meta.url).searchParams
const served = Number('SERVED_AT')
const loaded = performance.now()
const random = (length) =>
  Array.from(
    crypto.getRandomValues(new Uint8Array(length)),
    (b) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'[b % 62],
  ).join('')
const outcome = () => (globalThis.approovSim && globalThis.approovSim.outcome) || params.get('outcome') || 'pass'
const visitorId = 'VISITOR_ID'

export const load = async () => ({
  get: async () => {
    // The time by the service's clock, as the real service would note it.
    const now = Math.round(served + performance.now() - loaded)
    return {
      requestId: `sim-${outcome()}-${now}x${random(6)}`,
      visitorId,
      visitorFound: true,
      confidence: { score: 1 },
      meta: { version: 'v3' },
    }
  },
})
export default { load }
