/// <reference path="./shared.d.ts" />
// Simulated Fingerprint agent (v4), for development: same calls, same results, nothing fingerprinted.
if (simulated.isBlocked()) throw new TypeError('this script is blocked (simulated)')

const visitorId = 'VISITOR_ID'
const server = import.meta.url.split('?', 1)[0]
const codes = { timeout: 'client_timeout', reject: 'network_connection', 'script-blocked': 'csp_block' }

class FingerprintError extends Error {
  constructor(code, message = code) {
    super(message)
    this.name = 'FingerprintError'
    this.code = code
    this.event_id = null
  }
}

export const isFingerprintError = (error) => error instanceof Error && error.name === 'FingerprintError'
export const withoutDefault = (value) => ({ __type__: 'withoutDefault', value })

/** Bytes as the real agent gives them. */
const binary = (text) => {
  const byteArray = () => Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  const base64 = () => text
  const blob = () => new Blob([byteArray()])
  return { byteArray, blob, base64, toJSON: base64, toString: base64, [Symbol.toPrimitive]: base64 }
}

const identify = async (outcome, options) => {
  const { tag = null, tags = tag, linkedId = null } = options
  const body = JSON.stringify({ outcome, visitor: visitorId, url: location.href, tags, linked_id: linkedId })
  // A form's type, so that there is no preflight request.
  const headers = { 'Content-Type': 'text/plain' }
  const response = await fetch(server, { method: 'POST', headers, body, credentials: 'omit' }).catch(() => {
    throw new FingerprintError('network_connection')
  })
  if (!response.ok) throw new FingerprintError(response.status === 403 ? 'api_key_invalid' : 'server_error')
  return response.json()
}

/** Not a promise, other than the `load` of v3. */
export const start = () => ({
  async get(options = {}) {
    const { kind, outcome, code } = simulated.ending('PUBLIC_KEY')
    if (kind === 'never') await new Promise(() => {})
    if (kind !== 'token') throw new FingerprintError(code || codes[kind])
    const result = await identify(outcome, options)
    return { ...result, sealed_result: result.sealed_result && binary(result.sealed_result) }
  },
})

export default { start, isFingerprintError, withoutDefault }
