// `approov-web-sdk/checks`: loads the script of a check service, runs its challenge, and gives the result as `fetchToken` takes it.
// Importing this module, and making a check, touches no document.
//
//   check(context) ─▶ its turn ─▶ script ─▶ challenge ─▶ result
//                        │          │           ├ while a person is asked, nothing but the signal ends it
//                        └──────────┴───────────┴─▶ time-out, abort, or what the vendor says: an error
//
// Whatever the end is, it takes the widget down. A script that did not load is forgotten, so that the next run loads it again.
import { ApproovCheckError, ApproovError, invalid } from './errors.js'

/** Milliseconds for a script, and for an answer where no person is asked. */
const TIMEOUT = 10_000
const POLL_INTERVAL = 50
/** What a timer takes; one of more milliseconds runs at once. */
const MAX_TIMER = 2 ** 31 - 1

/** What vendors say, in error codes, messages or names of callbacks, and what it means. All else is `check-failed`. */
const MEANINGS = [
  [/challenge-closed/, 'check-cancelled'],
  [/expired|timeout/i, 'check-timeout'],
  // Codes of Fingerprint, Friendly Captcha and Turnstile: their own agent or frame did not load.
  [/^(csp_block|script_load_fail|network_error|200500)$/, 'check-blocked'],
  // Turnstile's codes are browsers that it cannot run in.
  [/^(unsupported|1105[01]\d)$/, 'check-unsupported'],
]

/** hCaptcha. */
export const hcaptcha = (given) =>
  makeCheck(
    given,
    'hcaptcha',
    'hcaptchaSiteKey',
    // Without recaptchacompat=off it takes the place of reCAPTCHA.
    script('https://js.hcaptcha.com/1/api.js?render=explicit&recaptchacompat=off', 'hcaptcha'),
    (api, { siteKey, size = 'invisible', theme = 'light', place, limit, done, fail }) => {
      const isDark = theme === 'auto' && matchMedia('(prefers-color-scheme: dark)').matches
      const id = api.render(place(), {
        sitekey: siteKey,
        size,
        theme: theme !== 'auto' ? theme : isDark ? 'dark' : 'light',
        callback: (response) => done({ hcaptchaToken: { response, key: api.getRespKey(id) } }),
        'open-callback': () => limit(),
        'close-callback': () => fail('challenge-closed'),
        'chalexpired-callback': () => fail('challenge-expired'),
        'error-callback': fail,
      })
      if (size === 'invisible') api.execute(id)
      else limit()
      return () => api.remove(id)
    },
  )

/** reCAPTCHA v3. */
export const recaptcha = (given) => google(given, 'recaptcha', 'api', (grecaptcha) => grecaptcha?.ready && grecaptcha)

/** reCAPTCHA Enterprise, with a score key. */
export const recaptchaEnterprise = (given) =>
  google(given, 'recaptchaEnterprise', 'enterprise', (grecaptcha) => grecaptcha?.enterprise)

/** The clients in this page, by check and site key: reCAPTCHA has no way to remove one. */
const clients = new Map()

function google(given, name, file, select) {
  if (typeof given?.action !== 'string') throw invalid('"action" must be text, such as "login"')
  return makeCheck(
    given,
    name,
    'recaptchaSiteKey',
    script(`https://www.google.com/recaptcha/${file}.js?render=explicit`, 'grecaptcha', select, 'execute'),
    (api, { siteKey, action, done, fail }) => {
      const key = `${name} ${siteKey}`
      let client = clients.get(key)
      // A client of its own runs whatever key the page's script was loaded for.
      if (client?.api !== api || !client.element.isConnected) {
        const element = document.body.appendChild(document.createElement('div'))
        client = { api, element, id: api.render(element, { sitekey: siteKey, size: 'invisible' }) }
        clients.set(key, client)
      }
      const { id } = client
      api.execute(id, { action }).then((recaptchaToken) => done({ recaptchaToken }), fail)
      return () => api.reset(id)
    },
  )
}

/** Cloudflare Turnstile. */
export const turnstile = (given) =>
  makeCheck(
    given,
    'turnstile',
    'turnstileSiteKey',
    script('https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit', 'turnstile'),
    (api, run) => {
      const { siteKey, action, appearance = 'interaction-only', theme = 'auto' } = run
      const { timeout, place, limit, done, fail } = run
      const id = api.render(place(), {
        sitekey: siteKey,
        action,
        appearance,
        theme,
        retry: 'never',
        'refresh-expired': 'never',
        'response-field': false,
        callback: (turnstileToken) => done({ turnstileToken }),
        'error-callback': (code) => {
          fail(code)
          // Handled: Turnstile need not write it to the console.
          return true
        },
        'timeout-callback': () => fail('timeout'),
        'unsupported-callback': () => fail('unsupported'),
        'before-interactive-callback': () => limit(),
        'after-interactive-callback': () => limit(timeout),
      })
      return () => api.remove(id)
    },
  )

/** Friendly Captcha, version 2. */
export const friendlyCaptcha = (given) =>
  makeCheck(
    given,
    'friendlyCaptcha',
    'friendlyCaptchaSiteKey',
    script('https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js', 'frcaptcha'),
    (api, { siteKey, endpoint = 'global', theme = 'light', timeout, place, limit, done, fail }) => {
      const element = place()
      const on = (name, listener) => element.addEventListener(`frc:widget.${name}`, ({ detail }) => listener(detail))
      on('complete', ({ response }) => done({ friendlyCaptchaResponse: response }))
      on('error', ({ error }) => fail(error))
      on('expire', () => fail('expired'))
      // Each step of its puzzle has its time; where a person has to click, that takes as long as it takes.
      on('statechange', ({ mode }) => limit(mode === 'interactive' ? 0 : timeout))
      const options = { sitekey: siteKey, apiEndpoint: endpoint, theme, startMode: 'auto', formFieldName: null }
      const widget = api.createWidget({ element, ...options })
      return () => widget.destroy()
    },
  )

/** How often the agent at an address did not load. */
const failures = new Map()

/** Fingerprint, with its agent version 4. */
export const fingerprint = (given) =>
  makeCheck(
    given,
    'fingerprint',
    'fingerprintPublicAPIKey',
    async ({ url, siteKey, onUnloaded, blocked }) => {
      const address = url ?? `https://fpjscdn.net/v4/${encodeURIComponent(siteKey)}`
      const failed = failures.get(address)
      onUnloaded(() => failures.set(address, (failed ?? 0) + 1))
      // Browsers remember a module that did not load, but not for an address with another fragment.
      const source = failed ? `${address}#${failed}` : address
      try {
        return await importModule(source)
      } catch (cause) {
        throw blocked(address, cause)
      }
    },
    (agent, { region = 'us', endpoints, timeout, done, fail }) => {
      const result = agent.start({ region, ...(endpoints && { endpoints }) }).get({ timeout })
      result.then((fingerprintIDResult) => done({ fingerprintIDResult }), fail)
    },
  )

/** ALTCHA: the SDK itself solves a challenge of the service. */
export const altcha = () => () => ({ altchaPayload: true })

/** The first of these checks that can be passed. */
export function firstOf(...checks) {
  if (!checks.length || checks.some((check) => typeof check !== 'function')) {
    throw invalid('firstOf needs checks, such as firstOf(turnstile(), altcha())')
  }
  return async (context) => {
    let failure
    for (const check of checks) {
      try {
        return await check(context)
      } catch (error) {
        context?.signal?.throwIfAborted()
        failure = error
        if (error?.code === 'check-cancelled') break
      }
    }
    throw failure
  }
}

/** By name of a check: ends with its last run. */
const turns = new Map()

/**
 * A check, whose runs take turns. `load` resolves to the vendor's interface; `start` begins a challenge and returns what takes it down.
 *
 * @param {any} given @param {string} name @param {string} key the site key's name among the options of a session
 * @param {(run: any) => Promise<any>} load @param {(api: any, run: any) => void | (() => void)} start
 */
function makeCheck(given, name, key, load, start) {
  // Own properties only; `null` is left out.
  const options = { __proto__: null, timeout: TIMEOUT }
  for (const [option, value] of Object.entries(given ?? {})) if (value != null) options[option] = value
  if (!(options.timeout > 0)) throw invalid('"timeout" must be a number of milliseconds')
  options.timeout = Math.min(options.timeout, MAX_TIMER)
  return (context) => {
    const before = turns.get(name)
    const run = attempt(before, options, name, key, context ?? {}, load, start)
    // Without the results, which would stay in memory.
    turns.set(
      name,
      Promise.allSettled([before, run]).then(() => {}),
    )
    return run
  }
}

/** One run: settles once, takes down what it put up, and leaves no timer or listener. */
function attempt(before, options, name, key, { signal, keys }, load, start) {
  const { timeout } = options
  const siteKey = options.siteKey ?? keys?.[key]
  /** What remains to be done at the end, whatever it is. @type {(() => void)[]} */
  const cleanups = []
  let isOver
  let timer
  let unloaded
  const error = (code, message, cause) =>
    new ApproovCheckError(`${name}: ${message}`, {
      code,
      cause,
      check: name,
      retryable: !/cancelled|unsupported/.test(code),
    })
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    if (!globalThis.document) throw error('check-unsupported', 'a check needs a page, and there is no document here')
    if (typeof siteKey !== 'string' || !siteKey) {
      throw invalid(`${name}: "siteKey" must be text, or else "${key}" of the session`)
    }
    const abort = () => reject(signal.reason)
    signal?.addEventListener('abort', abort)
    cleanups.push(() => signal?.removeEventListener('abort', abort))

    const fail = (cause) => {
      if (cause instanceof ApproovError) return reject(cause)
      const said = String(cause?.code ?? cause?.message ?? cause)
      const [, code] = MEANINGS.find(([pattern]) => /** @type {RegExp} */ (pattern).test(said)) ?? []
      reject(error(code ?? 'check-failed', said, cause))
    }
    const limit = (milliseconds) => {
      clearTimeout(timer)
      if (isOver || !milliseconds) return
      timer = setTimeout(() => {
        unloaded?.()
        reject(error('check-timeout', `no response within ${milliseconds} ms`))
      }, milliseconds)
    }
    const run = {
      ...options,
      siteKey,
      limit,
      fail,
      done: resolve,
      isOver: () => isOver,
      /** What to do when the script does not load. */
      onUnloaded: (forget) => (unloaded = forget),
      blocked(address, cause) {
        unloaded?.()
        return error('check-blocked', `${address} did not load`, cause)
      },
      /** An element for a widget. */
      place() {
        const element = placed(name, options.container)
        cleanups.push(() => element.remove())
        return element
      },
    }
    Promise.resolve(before)
      .then(() => {
        if (isOver) return
        limit(timeout)
        return load(run)
      })
      .then((api) => {
        if (isOver) return
        unloaded = undefined
        limit(timeout)
        cleanups.push(start(api, run) ?? (() => {}))
      })
      .catch(fail)
  }).finally(() => {
    isOver = true
    clearTimeout(timer)
    for (const cleanup of cleanups.reverse()) {
      try {
        cleanup()
      } catch {
        // A vendor's script that cannot take its widget down does not change how the check ended.
      }
    }
  })
}

/** A new element in the container; without one, in the lower right corner of the window. */
function placed(name, container) {
  const element = document.createElement('div')
  let parent = container ?? document.body
  if (!container) element.style.cssText = 'position:fixed;right:0;bottom:0;z-index:2147483647'
  if (typeof parent === 'function') parent = parent()
  if (typeof parent === 'string') parent = document.querySelector(parent)
  if (!parent?.append) throw invalid(`${name}: "container" must be an element of the page, or a selector of one`)
  parent.append(element)
  return element
}

/**
 * Loads a classic script, or waits for the one that the page has.
 *
 * @param {string} vendorUrl @param {string} global what it defines
 * @param {(global: any) => any} [select] the interface in that @param {string} [method] of the interface, which comes last
 */
const script =
  (vendorUrl, global, select = (value) => value, method) =>
  ({ url = vendorUrl, nonce, isOver, onUnloaded, blocked }) =>
    new Promise((resolve, reject) => {
      const found = () => select(globalThis[global])
      const look = () => {
        const api = found()
        const isThere = api && (!method || api[method])
        if (isThere) resolve(api)
        else if (!isOver()) setTimeout(look, POLL_INTERVAL)
        return isThere
      }
      if (look()) return
      const address = withoutQuery(new URL(url, document.baseURI).href)
      const present = [...document.scripts].find(({ src }) => withoutQuery(src) === address)
      const element = present ?? document.createElement('script')
      const failed = (cause) => reject(blocked(url, cause))
      onUnloaded(() => element.remove())
      element.addEventListener('error', () => failed())
      element.addEventListener('load', () => look() || found() || failed())
      if (present) return
      const { nonce: pageNonce = '' } = /** @type {any} */ (document.querySelector('script[nonce]')) ?? {}
      element.async = true
      element.nonce = nonce ?? pageNonce
      try {
        element.src = trusted(url)
      } catch (cause) {
        failed(cause)
      }
      document.head.append(element)
    })

const withoutQuery = (url) => url.split(/[?#]/)[0]

let policy

/** A script's address as pages with Trusted Types want it. @returns {any} */
function trusted(url) {
  const { trustedTypes } = /** @type {any} */ (globalThis)
  policy ??= trustedTypes?.createPolicy('approov-checks', { createScriptURL: (url) => url })
  return policy?.createScriptURL(url) ?? url
}
