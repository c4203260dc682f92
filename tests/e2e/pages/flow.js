// What tests do in a page, over and over: start a session, pass a check, call the protected API.
import { Approov } from '/approov.js'
import { CHECKS } from '/checks.js'

/** Arguments of `initializeSession` for one check. */
export function sessionOptions(settings, check, more = {}) {
  const { approovHost, approovSiteKey, keys } = settings
  return { approovHost, approovSiteKey, ...keys[check], ...more }
}

/** Longer than anything takes on however busy a machine: the usual time-out of `fetchToken` would be a test of the machine. */
export const PATIENCE = 120_000

/** Lets the simulated check run with this outcome; its result as the option that `fetchToken` takes, and time enough. */
export async function passCheck(settings, check, outcome = 'pass') {
  const { key, option, simulated, run } = CHECKS[check]
  const siteKey = settings.keys[check][key]
  globalThis.approovSim = { outcome }
  const result = await run({
    key: siteKey,
    script: simulated(settings.simulators, siteKey),
    widget: { place: () => document.body.appendChild(document.createElement('div')) },
  })
  return { [option]: result, timeout: PATIENCE }
}

/** A new session with a check that ends like this, and its first token. */
export async function firstToken(settings, check, outcome = 'pass') {
  await Approov.initializeSession(sessionOptions(settings, check))
  return Approov.fetchToken(settings.api, await passCheck(settings, check, outcome))
}

/**
 * One request to the protected API: status and body.
 *
 * @param {any} settings
 * @param {{token?: string, proof?: string, method?: string, url?: string, body?: BodyInit}} request
 */
export async function callApi(settings, { token, proof, method = 'GET', url = settings.apiUrl, body }) {
  const headers = { ...(token && { 'Approov-Token': token }), ...(proof && { Dpop: proof }) }
  const response = await fetch(url, { method, headers, body })
  const text = await response.text()
  return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : text }
}

/** What a promise's rejection is, as data; fails when it resolves. */
export async function rejection(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('this promise had to reject')
}
