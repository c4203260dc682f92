// The demo page: a call to the API as this browser, and the attacks on it. The diagram lights up by what the page sends and gets.
import { watch } from './watch.js'
// After `watch.js`: the SDK keeps the `fetch` that it finds.
import { Approov } from '/approov.js'

import { ATTACKS } from './attacks.js'
import { CHECKS, renewOf } from './checks.js'
import { decode } from './encoding.js'
import { follow, lineOf, position } from './log.js'
import { readState, writeState } from './state.js'

/** @returns {any} */
const byId = (id) => document.getElementById(id)
/** Its elements by name, whatever each is. @type {any} */
const form = byId('form')
const settings = await fetch('settings.json').then((response) => response.json())

/** What a person may give instead of the demo's own settings, in the address. */
const OWN = ['approovHost', 'approovSiteKey', ...Object.values(CHECKS).map(({ key }) => key), 'api', 'apiUrl']
const query = new URLSearchParams(location.search)
const values = Object.fromEntries(OWN.map((name) => [name, query.get(name)?.trim() || settings[name]]))

/** What the last action showed, for the tabs. */
const evidence = { claims: '', http: '', code: '' }
/** What a thief copied from the last accepted request. @type {any} */
let stolen
/** `fetch` with token and proof, of the session that there is. @type {ReturnType<typeof Approov.createFetch> | undefined} */
let apiFetch
let isBusy = false

// ---- the settings

for (const name of OWN) {
  const label = document.createElement('label')
  const input = Object.assign(document.createElement('input'), { name, autocomplete: 'off', spellcheck: false })
  input.placeholder = settings[name]
  input.value = query.get(name) ?? ''
  label.append(name, input)
  byId('own-fields').append(label)
}
byId('own').open = OWN.some((name) => query.has(name))
byId('own-form').addEventListener('submit', () => {
  // What is empty need not travel.
  for (const input of byId('own-fields').querySelectorAll('input')) input.disabled = input.value.trim() === ''
})
addEventListener('pageshow', () => {
  for (const input of byId('own-fields').querySelectorAll('input')) input.disabled = false
})

/** Puts the shared state on the page. */
function showState() {
  const state = readState()
  form.elements.check.value = Object.hasOwn(CHECKS, state.check) ? state.check : 'altcha'
  form.elements.outcome.value = state.outcome
  if (form.elements.outcome.selectedIndex < 0) form.elements.outcome.value = 'pass'
  form.elements.click.checked = state.click === 'yes'
  showChoice()
  showTab(Object.hasOwn(evidence, state.tab) ? state.tab : 'claims')
  byId('share').href = location.href
}

/** The check that is chosen, and what goes with it. */
function chosen() {
  const name = form.elements.check.value
  const check = CHECKS[name]
  const siteKey = values[check.key]
  const isSimulated = siteKey === settings[check.key]
  return { name, check, siteKey, isSimulated, outcome: form.elements.outcome.value }
}

function showChoice() {
  const { check, name, isSimulated } = chosen()
  byId('check-says').textContent = check.what
  const hasOutcomes = isSimulated && Boolean(check.simulated)
  form.elements.outcome.disabled = !hasOutcomes
  byId('widget').hidden = !check.hasWidget
  byId('click-field').hidden = !check.hasWidget || !isSimulated
  if (!hasOutcomes) form.elements.outcome.value = 'pass'
  if (!stolen) evidence.code = codeOf(name)
}

form.addEventListener('change', () => {
  share({
    check: form.elements.check.value,
    outcome: form.elements.outcome.value,
    click: form.elements.click.checked ? 'yes' : 'no',
    attack: '',
    run: '',
  })
  // Another check is another session.
  apiFetch = undefined
  stolen = undefined
  showButtons()
  showChoice()
  evidence.code = codeOf(form.elements.check.value)
  showTab(readState().tab)
})

function share(changes) {
  byId('share').href = writeState(changes)
}

byId('share').addEventListener('click', (event) => {
  event.preventDefault()
  navigator.clipboard?.writeText(event.currentTarget.href).then(
    () => (byId('share').textContent = 'Link copied'),
    () => (byId('share').textContent = 'The address of this page is the link'),
  )
})

// ---- tabs

function showTab(name) {
  for (const tab of document.querySelectorAll('[role=tab]')) {
    const isSelected = /** @type {HTMLElement} */ (tab).dataset.tab === name
    tab.setAttribute('aria-selected', String(isSelected))
    tab.setAttribute('tabindex', isSelected ? '0' : '-1')
  }
  byId('panel').setAttribute('aria-labelledby', `tab-${name}`)
  byId('panel').textContent = evidence[name] || 'Nothing has been sent yet.'
}

const tabs = /** @type {HTMLElement[]} */ ([...document.querySelectorAll('[role=tab]')])
for (const [index, tab] of tabs.entries()) {
  const select = ({ dataset }) => {
    share({ tab: dataset.tab })
    showTab(dataset.tab)
  }
  tab.addEventListener('click', () => select(tab))
  tab.addEventListener('keydown', ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key]
    if (!step) return
    const next = tabs.at((index + step) % tabs.length)
    select(next)
    next.focus()
  })
}

/** The program that does what the page just did. */
function codeOf(name) {
  const { key, option = key, renew, options } = CHECKS[name]
  const siteKey = values[key]
  const call = name === 'friendly' ? 'friendlyCaptcha' : name
  const given = options ? JSON.stringify(options).replaceAll('"', "'").replaceAll(':', ': ').replaceAll(',', ', ') : ''
  const check =
    renew === CHECKS.altcha.renew ? '' : `\n  renew: checks.${call}(${given.replace(/'(\w+)': /g, '$1: ')}),`
  return `import { Approov${check && ', checks'} } from './approov.js'

const apiFetch = Approov.createFetch({
  origins: ['${new URL(values.apiUrl).origin}'],
  session: {
    approovHost: '${values.approovHost}',
    approovSiteKey: '${values.approovSiteKey}',
    ${option}: '${siteKey}',
  },${check}
})

// Begins the session, passes the check, adds token and proof, refreshes both.
const response = await apiFetch('${values.apiUrl}', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ wants: 'a shape' }),
})`
}

// ---- the diagram

const STATES = {
  idle: '',
  running: '…',
  done: '✓',
  decoy: 'decoy',
  failed: '✗',
  kept: 'kept',
  stolen: 'stolen',
  none: 'none',
}

/** Lights a step. @param {string} name @param {keyof typeof STATES} state @param {string} [says] */
function light(name, state, says = STATES[state]) {
  const step = /** @type {HTMLElement} */ (document.querySelector(`[data-step=${name}]`))
  step.dataset.state = state
  step.querySelector('.state').textContent = says
  const node = step.closest('li')
  const isRunning = node.querySelector('[data-state=running]') !== null
  node.toggleAttribute('data-active', isRunning)
}

const stepState = (name) => /** @type {HTMLElement} */ (document.querySelector(`[data-step=${name}]`)).dataset.state

function darken() {
  for (const step of document.querySelectorAll('[data-step]'))
    light(/** @type {HTMLElement} */ (step).dataset.step, 'idle')
}

const isOfApi = ({ url }) => new URL(url).origin === new URL(values.apiUrl).origin
const isOfService = ({ url }) => url.startsWith(values.approovHost) && new URL(url).pathname === '/attest'

/** The steps that a request or response of the page is the event of. @param {import('./watch.js').Exchange} exchange */
function lightBy(exchange) {
  const { method, headers, body, response } = exchange
  if (isOfService(exchange) && !response) {
    if (headers.dpop) light('key', 'done')
    if (method !== 'POST') return
    // Its check has a result now, or a refresh token needs none.
    if (stepState('check') === 'running') light('check', 'done')
    if (!body.includes('refresh-token=') || stepState('token') !== 'done') light('token', 'running')
  } else if (isOfService(exchange) && method === 'POST') {
    if (response.status === 429) light('check', 'running', 'solving…')
    else if (response.status !== 200) light('token', 'failed', String(response.status))
    else if (isDecoy(response.body)) {
      light('check', 'failed', 'not passed')
      light('token', 'decoy')
    } else light('token', 'done')
  } else if (isOfApi(exchange)) {
    if (!response) {
      if (stepState('proof') !== 'stolen') light('proof', headers.dpop ? 'done' : 'none')
      light('api', 'running')
    } else if (response.status === 200) light('api', 'done', '200')
    else light('api', 'failed', String(response.status))
  }
}

/** Whether the service says, as it does in development only, that its tokens are of a failed check. */
function isDecoy(body) {
  const { notes = [] } = parse(body) ?? {}
  return notes.some((note) => note.includes('failed check'))
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

// ---- what an action shows

/** @param {'idle' | 'running' | 'done' | 'failed' | 'refused' | 'protected'} state */
function verdict(state, title, detail) {
  byId('verdict').dataset.state = state
  byId('verdict-title').textContent = title
  byId('verdict-detail').textContent = detail
}

/** Scrolls to the verdict where it is out of sight, as on phones; the focus stays. */
function revealVerdict() {
  const { top, bottom } = byId('verdict').getBoundingClientRect()
  if (top < 0 || bottom > innerHeight) byId('verdict').scrollIntoView({ block: 'start' })
}

const format = (value) => (typeof value === 'string' ? value : JSON.stringify(value, null, 2))
/** Long values are shortened in the middle. */
const short = (text) =>
  text.length > 160 ? `${text.slice(0, 100)}…${text.slice(-24)} (${text.length} characters)` : text

/** @param {import('./watch.js').Exchange} exchange */
function httpText({ method, url, headers, body, response }) {
  const list = (all) => Object.entries(all).map(([name, value]) => `${name}: ${short(value)}`)
  const bodyText = (text) => (text ? ['', text.split('&').map(short).join('\n&')] : [])
  return [
    `${method} ${url}`,
    ...list(headers),
    ...bodyText(body),
    '',
    ...(response ? [`→ ${response.status}`, ...list(response.headers), ...bodyText(response.body)] : ['→ no response']),
  ].join('\n')
}

function claimsText(exchange) {
  const { headers, response } = exchange
  const parts = []
  if (headers['approov-token']) parts.push(['Token', decode(headers['approov-token'])])
  parts.push(['Proof', headers.dpop ? decode(headers.dpop) : 'none'])
  parts.push(['What the API says', parse(response.body) ?? response.body])
  return parts.map(([name, value]) => `${name}\n${format(value)}`).join('\n\n')
}

const lineText = ({ entry }) =>
  ['method', 'path', 'status', 'code', 'outcome', 'codes', 'checks', 'detail']
    .filter((name) => entry[name] !== undefined && String(entry[name]) !== '')
    .map((name) => (name === 'detail' ? `“${entry[name]}”` : String(entry[name])))
    .join(' · ')

/**
 * Does something, and gathers what the page sent and got for it.
 *
 * @param {() => Promise<Response>} work
 * @returns {Promise<{exchanges: import('./watch.js').Exchange[], call?: import('./watch.js').Exchange, requests: number, error?: any}>}
 */
async function observe(work, onExchange = (exchange) => {}) {
  const exchanges = []
  const since = position()
  let requests = 0
  const stop = watch((exchange) => {
    onExchange(exchange)
    if (exchange.response) exchanges.push(exchange)
    else if (isOfService(exchange)) requests += 1
  })
  let error
  try {
    await work()
  } catch (thrown) {
    error = thrown ?? new Error('nothing was thrown')
  } finally {
    stop()
  }
  const call = exchanges.findLast(isOfApi)
  const asked = exchanges.findLast(isOfService)
  const line = call && (await lineOf('api', since, call))
  const serviceLine = asked && (await lineOf('service', since, asked))
  byId('api-line').textContent = line ? lineText(line) : 'nothing: no request came'
  byId('service-line').textContent = serviceLine ? lineText(serviceLine) : 'nothing: it was not asked'
  const problem = call && parse(call.response.body)
  byId('response-line').textContent = call
    ? [call.response.status, problem?.code, problem?.detail && `“${problem.detail}”`].filter(Boolean).join(' · ')
    : describe(error)
  evidence.http = exchanges.map(httpText).join('\n\n――――――――――\n\n')
  evidence.claims = call ? claimsText(call) : describe(error)
  return { exchanges, call, requests, error }
}

/** An error as what it is: class, code, message, the service's codes. @param {any} error */
function describe(error) {
  if (!(error instanceof Error)) return String(error)
  const { name, message, code, errors } = /** @type {any} */ (error)
  const codes = errors && !(errors instanceof Error) ? ` (${Object.keys(errors).join(', ')})` : ''
  return `${name}${code ? ` · ${code}` : ''} · ${message}${codes}`
}

function showButtons() {
  const canAttack = stolen !== undefined && !isBusy
  // Not `disabled`: that would take the focus away from who works by keyboard.
  byId('run').ariaDisabled = String(isBusy)
  byId('again').ariaDisabled = String(isBusy || !apiFetch)
  byId('all').ariaDisabled = String(!canAttack)
  for (const button of document.querySelectorAll('.attack')) button.ariaDisabled = String(!canAttack)
}

/** One action at a time; its button keeps the focus. */
async function act(work) {
  if (isBusy) return
  isBusy = true
  showButtons()
  try {
    await work()
  } finally {
    isBusy = false
    showButtons()
    showTab(readState().tab)
    revealVerdict()
  }
}

// ---- a call as this browser

/** A new session with the check that is chosen. */
function beginSession() {
  const { check, siteKey, isSimulated, outcome } = chosen()
  const asksForClick = Boolean(check.hasWidget) && (!isSimulated || form.elements.click.checked)
  Object.assign(globalThis, {
    approovSim: isSimulated ? { outcome, interactive: asksForClick && !check.clickOptions } : undefined,
  })
  const renew = renewOf(check, siteKey, {
    simulators: isSimulated ? settings.simulators : undefined,
    container: byId('widget'),
    asksForClick,
  })
  return Approov.createFetch({
    origins: [new URL(values.apiUrl).origin],
    api: values.api,
    session: {
      approovHost: values.approovHost,
      approovSiteKey: values.approovSiteKey,
      .../** @type {any} */ ({ [check.option ?? check.key]: siteKey }),
    },
    async renew(context) {
      light('check', 'running', check.hasWidget ? 'your turn' : '…')
      try {
        const result = await renew(context)
        // ALTCHA's result is a promise to solve: it is solved when the request goes out.
        if (check.simulated) light('check', 'done')
        return result
      } catch (error) {
        light('check', 'failed', error?.code ?? 'failed')
        throw error
      }
    },
  })
}

const callApi = () =>
  apiFetch(values.apiUrl, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ wants: 'a shape' }),
  })

/** Remembers an accepted request, as a thief would. */
function steal({ url, headers, body }) {
  stolen = { url, token: headers['approov-token'], proof: headers.dpop, body }
}

async function call({ isNew }) {
  darken()
  showChoice()
  resetAttacks()
  verdict('running', 'Calling the API…', 'Browser, check, service, API: follow the lights.')
  if (isNew) {
    stolen = undefined
    await Approov.endSession()
    apiFetch = beginSession()
    light('key', 'running')
  } else lightKept()
  evidence.code = codeOf(chosen().name)
  const { call, requests, error } = await observe(callApi, lightBy)
  if (error || !call) {
    for (const name of ['key', 'check', 'token', 'proof', 'api'])
      if (stepState(name) === 'running') light(name, 'failed')
    if (isNew) apiFetch = undefined
    verdict('failed', 'No request was made to the API.', describe(error))
  } else if (call.response.status === 200) {
    steal(call)
    const from =
      requests === 0 ? 'token from the cache, 0 requests to the service' : `${requests} requests to the service`
    verdict('done', 'Let in: a real browser session.', `200, ${from}. Now try to get in with its token: below.`)
  } else {
    apiFetch = undefined
    const { code = '', detail = '' } = parse(call.response.body) ?? {}
    verdict(
      'refused',
      `Refused: ${code}`,
      stepState('token') === 'decoy'
        ? `The check did not pass, so the service gave a token that looks good and that no API accepts: “${detail}”.`
        : `${call.response.status}: ${detail}`,
    )
  }
  if (!error) await showExpiries()
}

const lightKept = () => ['key', 'check', 'token'].forEach((name) => light(name, 'kept'))

let countdown
/** Shows the expiries, counting down. */
async function showExpiries() {
  clearInterval(countdown)
  const expiries = await Approov.getExpiries()
  const show = () => {
    const parts = Object.entries(expiries).map(([name, at]) => {
      const left = Math.max(0, Math.round((at - Date.now()) / 1000))
      return `${name} in ${Math.floor(left / 60)} min ${String(left % 60).padStart(2, '0')} s`
    })
    byId('expiries').textContent = `Ends: ${parts.join(', ')}`
  }
  show()
  countdown = setInterval(show, 1000)
}

// ---- attacks

for (const [name, { title, story }] of Object.entries(ATTACKS)) {
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'attack'
  button.dataset.attack = name
  button.ariaDisabled = 'true'
  for (const [tag, text] of [
    ['strong', title],
    ['span', story],
    ['output', 'not tried'],
  ])
    button.append(Object.assign(document.createElement(tag), { textContent: text }))
  button.addEventListener('click', () => {
    if (button.ariaDisabled !== 'true') act(() => attack(name))
    else if (!isBusy) verdict('idle', 'There is nothing to steal yet.', 'First call the API as this browser.')
  })
  byId('attacks').append(button)
}

/** @returns {HTMLElement} */
const attackButton = (name) => document.querySelector(`[data-attack=${name}]`)

function resetAttacks() {
  for (const name of Object.keys(ATTACKS)) {
    attackButton(name).removeAttribute('data-state')
    attackButton(name).querySelector('output').textContent = 'not tried'
  }
}

/** A session of its own, so that the victim's goes on: another instance of the SDK, whose check fails. */
function failing() {
  const picked = chosen()
  const check = picked.check.simulated && picked.isSimulated ? picked.check : CHECKS.hcaptcha
  const siteKey = settings[check.key]
  return {
    api: settings.api,
    session: {
      approovHost: settings.approovHost,
      approovSiteKey: settings.approovSiteKey,
      [check.option ?? check.key]: siteKey,
    },
    pass() {
      byId('check-says').textContent = check.what
      light('check', 'running')
      Object.assign(globalThis, { approovSim: { outcome: 'fail' } })
      const { signal } = new AbortController()
      const options = { simulators: settings.simulators, container: byId('widget') }
      return renewOf(check, siteKey, options)({ signal, reason: 'start', keys: {} })
    },
  }
}

async function attack(name) {
  const { title, run, took } = ATTACKS[name]
  const button = attackButton(name)
  share({ attack: name })
  button.dataset.state = 'running'
  verdict('running', `${title}…`, ATTACKS[name].story)
  // What the thief did not do is dark: the ticks of the victim are not theirs.
  darken()
  showChoice()
  for (const step of took) light(step, 'stolen')
  evidence.code = `// ${title}\n${String(run)}`
  const context = {
    Approov,
    stolen,
    failingCheck: failing(),
    secondSdk: () => import('/approov.js?thief'),
  }
  const { call, error } = await observe(() => run(context), lightBy)
  const { code = '', detail = '' } = (call && parse(call.response.body)) ?? {}
  const isRefused = !error && call && call.response.status !== 200
  button.dataset.state = isRefused ? 'refused' : 'failed'
  const said = isRefused ? code : error ? describe(error) : 'LET IN'
  button.querySelector('output').textContent = isRefused ? `✗ ${call.response.status} ${said}` : said
  if (isRefused)
    verdict('refused', `Refused: ${code}`, `${title}: the API responded ${call.response.status}, “${detail}”.`)
  else if (error) verdict('failed', 'The attack could not be made.', describe(error))
  else verdict('failed', 'The API let the attack in.', 'That must not be: please report it.')
  return isRefused
}

async function attackAll() {
  const names = Object.keys(ATTACKS)
  let refused = 0
  for (const name of names) if (await attack(name)) refused += 1
  share({ attack: 'all' })
  // Whom the attacks were to rob calls once more.
  darken()
  showChoice()
  lightKept()
  evidence.code = codeOf(chosen().name)
  const { call } = await observe(callApi, lightBy)
  const isIn = call?.response.status === 200
  if (isIn) steal(call)
  verdict(
    refused === names.length && isIn ? 'protected' : 'failed',
    `${refused} of ${names.length} attacks refused.`,
    isIn
      ? 'The stolen token opened nothing. This browser called once more with its own key, and got in.'
      : 'This browser, which may call, did not get in any more. That must not be: please report it.',
  )
}

// ---- begin

form.addEventListener('submit', (event) => {
  event.preventDefault()
  if (byId('run').ariaDisabled === 'true') return
  share({ attack: '', run: 'yes' })
  act(() => call({ isNew: true }))
})
byId('again').addEventListener('click', () => {
  if (byId('again').ariaDisabled !== 'true') act(() => call({ isNew: false }))
})
byId('all').addEventListener('click', () => {
  if (byId('all').ariaDisabled !== 'true') act(attackAll)
})
addEventListener('hashchange', showState)

follow().catch((error) => (byId('api-line').textContent = `The logs are not to be had: ${error.message}`))
showState()
showButtons()
document.documentElement.dataset.ready = ''

// A link to something that happened lets it happen.
const { run, attack: wanted } = readState()
if (run || wanted)
  await act(async () => {
    await call({ isNew: true })
    if (!stolen) return
    if (wanted === 'all') await attackAll()
    else if (Object.hasOwn(ATTACKS, wanted)) await attack(wanted)
  })
