// The demo page: one run of the flow, step by step, with each step's real values on the page.
import { Approov } from './approov.js'

import { CHECKS } from './checks.js'
import { decode, randomText, sha256 } from './encoding.js'

/** Its elements by name, whatever each is. @type {any} */
const form = document.getElementById('form')
const [runButton, againButton] = ['run', 'again'].map(
  (id) => /** @type {HTMLButtonElement} */ (document.getElementById(id)),
)
const outcome = document.getElementById('outcome')
const settings = await fetch('settings.json').then((response) => response.json())

/** What a person may give instead of the demo's own settings: in the address or in the form. */
const OWN = [
  'approovHost',
  'approovSiteKey',
  'hcaptchaSiteKey',
  'recaptchaSiteKey',
  'fingerprintPublicAPIKey',
  'turnstileSiteKey',
  'friendlyCaptchaSiteKey',
  'altchaSiteKey',
  'api',
  'apiUrl',
]

const query = new URLSearchParams(location.search)
for (const name of OWN) {
  form.elements[name].placeholder = settings[name]
  form.elements[name].value = query.get(name) ?? ''
}
document.getElementById('own').toggleAttribute(
  'open',
  OWN.some((name) => query.has(name)),
)
for (const name of ['check', 'outcome']) if (query.has(name)) form.elements[name].value = query.get(name)

const widgets = {}
/** The place of a check service's widget; each site key gets one that stays. */
function widgetFor(key) {
  return (widgets[key] ??= {
    id: undefined,
    place: () => document.getElementById('widget').appendChild(document.createElement('div')),
  })
}

/** Shows a step's state and, when it is done or failed, its value and how long it took. */
async function step(name, work, show = (value) => value) {
  const item = document.querySelector(`[data-step=${name}]`)
  const begin = performance.now()
  item.dataset.state = 'running'
  try {
    const value = await work()
    item.querySelector('pre').textContent = format(show(value))
    item.dataset.state = 'done'
    return value
  } catch (error) {
    item.querySelector('pre').textContent = format(describe(error))
    item.dataset.state = 'failed'
    throw error
  } finally {
    item.querySelector('.time').textContent = `${(performance.now() - begin).toFixed(1)} ms`
  }
}

const format = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2))

/** An error as what it is: class, code, message, the service's codes, the cause. @param {any} error */
function describe(error) {
  if (!(error instanceof Error)) return { thrown: String(error) }
  return {
    error: error.name,
    ...(error.code && { code: error.code }),
    message: error.message,
    ...(error.errors && { errors: error.errors instanceof Error ? String(error.errors) : error.errors }),
    ...(error.cause && { cause: String(error.cause) }),
    ...(error instanceof RefusedByApi && { response: error.response }),
  }
}

class RefusedByApi extends Error {
  name = 'RefusedByApi'
  constructor(status, response) {
    super(`the API refused the request with status ${status}`)
    this.response = response
  }
}

function reset() {
  for (const item of document.querySelectorAll('[data-step]')) {
    item.dataset.state = 'idle'
    item.querySelector('pre').textContent = ''
    item.querySelector('.time').textContent = ''
  }
}

/** The settings of this run, and whether the check is simulated: it is, unless a key was given for it. */
function chosen() {
  const values = { ...settings }
  for (const name of OWN) values[name] = form.elements[name].value.trim() || settings[name]
  const check = CHECKS[form.elements.check.value]
  const key = values[check.key]
  const simulated = key === settings[check.key]
  const script = simulated ? check.simulated(settings.simulators, key) : check.script(key)
  return { values, check, key, script, simulated, outcome: form.elements.outcome.value }
}

/** A new session, a check, a token. */
async function attest({ values, check, key, script, simulated, outcome }) {
  const { approovHost, approovSiteKey } = values
  await step(
    'session',
    () => Approov.initializeSession({ approovHost, approovSiteKey, [check.key]: key }),
    () => ({ approovHost, approovSiteKey, [check.key]: key }),
  )
  if (simulated) globalThis.approovSim = { outcome }
  const result = await step('check', () => check.run({ key, script, widget: widgetFor(script) }))
  return step('token', () => Approov.fetchToken(values.api, { [check.option]: result }), decode)
}

/** One request to the protected API, with the token and a proof for exactly this request. */
async function callApi(values, token) {
  const body = JSON.stringify({ wants: 'a shape' })
  const proof = await step(
    'proof',
    async () => Approov.getDPoPToken('POST', values.apiUrl, randomText(32), token, await sha256(body)),
    decode,
  )
  return step('api', async () => {
    const response = await fetch(values.apiUrl, {
      method: 'POST',
      headers: { 'Approov-Token': token, Dpop: proof, 'Content-Type': 'application/json' },
      body,
    })
    const text = await response.text()
    const content = text.startsWith('{') ? JSON.parse(text) : text
    if (!response.ok) throw new RefusedByApi(response.status, content)
    return content
  })
}

let countdown
/** Shows the expiries, counting down. */
async function showExpiries() {
  clearInterval(countdown)
  const item = document.querySelector('[data-step=expiries]')
  const expiries = await step('expiries', () => Approov.getExpiries())
  const show = () => {
    const rows = Object.entries(expiries).map(([name, at]) => {
      const left = Math.max(0, Math.round((at - Date.now()) / 1000))
      return `${name}\n  ${new Date(at).toLocaleTimeString()}, in ${Math.floor(left / 60)} min ${String(left % 60).padStart(2, '0')} s`
    })
    item.querySelector('pre').textContent = rows.join('\n')
  }
  show()
  countdown = setInterval(show, 1000)
}

/** Runs the flow, or its second half, and says how it ended. */
async function run(getToken) {
  runButton.disabled = againButton.disabled = true
  outcome.dataset.state = 'running'
  outcome.textContent = 'Running…'
  let haveToken = false
  try {
    const choice = chosen()
    const token = await getToken(choice)
    haveToken = true
    await showExpiries()
    await callApi(choice.values, token)
    outcome.textContent = 'The API accepted the token and the proof.'
    outcome.dataset.state = 'done'
  } catch (error) {
    outcome.textContent =
      error instanceof RefusedByApi
        ? 'The API refused the request. A check that did not pass gives a token that no backend accepts.'
        : `${error?.name ?? 'Error'}: ${error?.message ?? error}`
    outcome.dataset.state = 'failed'
  } finally {
    runButton.disabled = false
    againButton.disabled = !haveToken
  }
}

form.addEventListener('submit', (event) => {
  event.preventDefault()
  clearInterval(countdown)
  reset()
  run(attest)
})

againButton.addEventListener('click', () =>
  run(({ values }) => step('token', () => Approov.fetchToken(values.api, {}), decode)),
)
