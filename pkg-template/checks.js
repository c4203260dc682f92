// The check services: each function gives a `renew` for createFetch, which loads the vendor's script, runs it, and gives its result as
// `fetchToken` takes it. Nothing is loaded or looked at before that runs.
import { ApproovCheckError, invalid } from './errors.js'

/** How long a script may take to load, and a check that asks nobody to answer, in milliseconds. */
const TIMEOUT = 10_000

/** Frameworks and errors of vendors give all kinds of values. */
const own = (options) => /** @type {any} */ ({ __proto__: null, ...options })

const failure = (check, code, message, cause) =>
  new ApproovCheckError(`${check}: ${message}`, {
    code,
    check,
    retryable: /blocked|timeout|failed/.test(code),
    ...(cause === undefined ? {} : { cause }),
  })

/**
 * What a promise comes to, unless the signal is aborted before, or the time is up. @param {any} promise @param {AbortSignal} [signal]
 * @param {number} [timeout] @param {() => Error} [late] @returns {Promise<any>}
 */
function within(promise, signal, timeout, late) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason)
    const timer = timeout === undefined ? undefined : setTimeout(() => reject(late()), timeout)
    if (signal?.aborted) abort()
    signal?.addEventListener('abort', abort, { once: true })
    Promise.resolve(promise)
      .then(resolve, reject)
      .finally(() => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
      })
  })
}

/** Pages that require trusted types let scripts load by this policy. */
let policy
function trusted(url) {
  const types = /** @type {any} */ (globalThis).trustedTypes
  if (!types) return url
  policy ??= types.createPolicy('approov-checks', { createScriptURL: (/** @type {string} */ url) => url })
  return policy.createScriptURL(url)
}

/** The loads under way, by URL. @type {Map<string, { loaded: Promise<void>, forget: () => void }>} */
const loads = new Map()
/** Script elements of the page that have come to nothing. */
const dead = new WeakSet()

/** Loads a classic script. A load that failed is forgotten, and its element removed, so that the next try is a new one. */
function load(url, nonce) {
  const known = loads.get(url)
  if (known) return known
  const script = document.createElement('script')
  const forget = () => {
    loads.delete(url)
    script.remove()
  }
  /** @type {Promise<void>} */
  const loaded = new Promise((resolve, reject) => {
    script.onload = () => resolve()
    script.onerror = () => {
      forget()
      reject(new Error('it did not load'))
    }
    script.async = true
    script.nonce = nonce ?? /** @type {HTMLScriptElement} */ (document.querySelector('script[nonce]'))?.nonce ?? ''
    script.src = trusted(url)
    document.head.append(script)
  })
  loads.set(url, { loaded, forget })
  return { loaded, forget }
}

/** Waits until something is there that a script which has run makes; some do so later. */
async function until(find, signal) {
  for (;;) {
    const found = find()
    if (found || signal.aborted) return found
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/**
 * What the vendor's script defines: of the page's own script, if there is one, or of one that is loaded now.
 *
 * @param {string} check
 * @param {string} url
 * @param {() => any} find
 */
async function api(check, url, find, { nonce, timeout }, signal) {
  const found = find()
  if (found) return found
  const blocked = (cause) =>
    failure(check, 'check-blocked', `its script did not load within ${timeout} ms or was blocked: ${url}`, cause)
  const stop = new AbortController()
  const wait = (promise) => within(promise, signal, timeout, blocked)
  const element = [...document.scripts].find((script) => isOf(script, url))
  try {
    if (element && !loads.has(url)) {
      const failed = new Promise((_, reject) => element.addEventListener('error', reject, { once: true }))
      try {
        return await wait(Promise.race([until(find, stop.signal), failed]))
      } catch (error) {
        if (!signal?.aborted) dead.add(element)
        if (error instanceof ApproovCheckError || signal?.aborted) throw error
      }
    }
    const { loaded, forget } = load(url, nonce)
    try {
      return await wait(loaded.then(() => until(find, stop.signal)))
    } catch (error) {
      if (!signal?.aborted) forget()
      throw error
    }
  } catch (error) {
    throw error instanceof ApproovCheckError || signal?.aborted ? error : blocked(error)
  } finally {
    stop.abort()
  }
}

const isOf = (script, url) => !dead.has(script) && script.src.split('?')[0] === url.split('?')[0]

/**
 * A `renew`: one run at a time.
 *
 * @param {string} check
 * @param {any} options
 * @param {string} keyName
 * @param {(run: any) => Promise<any>} run
 */
function makeCheck(check, options, keyName, run) {
  const given = own(options)
  const { timeout = TIMEOUT } = given
  if (typeof timeout !== 'number' || !(timeout > 0)) throw invalid('"timeout" must be a number of milliseconds')
  let before = Promise.resolve()
  return async (context) => {
    const { signal, keys } = own(context)
    if (typeof document === 'undefined') {
      throw failure(check, 'check-unsupported', 'there is no page here to run it in')
    }
    const siteKey = given.siteKey ?? keys?.[keyName]
    if (typeof siteKey !== 'string' || !siteKey) {
      throw invalid(`${check}: "siteKey" is missing, and the session has no ${keyName}`)
    }
    signal?.throwIfAborted()
    const turn = before.then(() => {
      signal?.throwIfAborted()
      return run({ ...given, timeout, siteKey, signal })
    })
    before = turn.then(
      () => {},
      () => {},
    )
    // Who gives up does not wait for the run before.
    return within(turn, signal)
  }
}

/** Runs with an element for a widget, which is gone after that. */
async function inPlace(check, container, work) {
  const parent =
    typeof container === 'string'
      ? document.querySelector(container)
      : typeof container === 'function'
        ? container()
        : container
  if (container !== undefined && !(parent?.nodeType === 1))
    throw invalid(`${check}: "container" is no element of the page`)
  const element = document.createElement('div')
  if (!parent) Object.assign(element.style, { position: 'fixed', right: '16px', bottom: '16px', zIndex: '2147483647' })
  ;(parent ?? document.body).append(element)
  try {
    return await work(element)
  } finally {
    element.remove()
  }
}

/** What a vendor's script ends with instead of a result. */
const thrown = (check, codes) => (error) => {
  const code = String(error?.code ?? error?.message ?? error)
  return failure(check, codes[code] ?? 'check-failed', `it ended with ${code}`, error)
}

const inTime = (check, promise, { signal, timeout }) =>
  within(promise, signal, timeout, () => failure(check, 'check-timeout', `it did not end within ${timeout} ms`))

/** hCaptcha. A person has until the signal. */
export function hcaptcha(options) {
  const check = 'hcaptcha'
  const ended = thrown(check, { 'challenge-closed': 'check-cancelled', 'challenge-expired': 'check-timeout' })
  return makeCheck(check, options, 'hcaptchaSiteKey', async (run) => {
    const { siteKey, signal, container, theme, size = 'invisible' } = run
    // recaptchacompat=off: or it takes the place of reCAPTCHA's own `grecaptcha`.
    const url = run.url ?? 'https://js.hcaptcha.com/1/api.js?render=explicit&recaptchacompat=off'
    const script = await api(check, url, () => globalThis.hcaptcha?.render && globalThis.hcaptcha, run, signal)
    return inPlace(check, container, async (element) => {
      let clicked
      const click = new Promise((resolve, reject) => {
        clicked = { callback: (response) => resolve({ response }), 'error-callback': (code) => reject(code) }
      })
      const id = script.render(element, { sitekey: siteKey, size, theme, ...(size === 'invisible' ? {} : clicked) })
      try {
        const solving = size === 'invisible' ? script.execute(id, { async: true }) : click
        const hcaptchaToken = await within(solving, signal)
        return {
          hcaptchaToken: size === 'invisible' ? hcaptchaToken : { ...hcaptchaToken, key: script.getRespKey(id) },
        }
      } catch (error) {
        throw signal?.aborted ? signal.reason : ended(error)
      } finally {
        script.remove(id)
      }
    })
  })
}

/** reCAPTCHA v3 and Enterprise, which may be on one page. */
const google = (check, path, find) =>
  function (options) {
    const { action } = own(options)
    if (typeof action !== 'string' || !action) throw invalid(`${check}: "action" must be the name of an action`)
    return makeCheck(check, options, 'recaptchaSiteKey', async (run) => {
      const { siteKey, signal } = run
      const url = run.url ?? `https://www.google.com/recaptcha/${path}?render=${encodeURIComponent(siteKey)}`
      const script = await api(check, url, () => (find()?.ready ? find() : undefined), run, signal)
      try {
        const solving = new Promise((resolve) => script.ready(resolve)).then(() => script.execute(siteKey, { action }))
        return { recaptchaToken: await inTime(check, solving, run) }
      } catch (error) {
        throw error instanceof ApproovCheckError || signal?.aborted
          ? error
          : thrown(check, { Timeout: 'check-timeout' })(error)
      }
    })
  }
export const recaptcha = google('recaptcha', 'api.js', () => globalThis.grecaptcha)
export const recaptchaEnterprise = google(
  'recaptchaEnterprise',
  'enterprise.js',
  () => globalThis.grecaptcha?.enterprise,
)

/** Turnstile. Who is asked to click has until the signal. */
export function turnstile(options) {
  const check = 'turnstile'
  return makeCheck(check, options, 'turnstileSiteKey', async (run) => {
    const { siteKey, signal, container, theme, action, appearance = 'interaction-only', timeout } = run
    const url = run.url ?? 'https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit'
    const find = () => /** @type {any} */ (globalThis).turnstile
    const script = await api(check, url, () => (find()?.render ? find() : undefined), run, signal)
    return inPlace(check, container, async (element) => {
      let id
      let timer
      const solving = new Promise((resolve, reject) => {
        const end = (code, message, cause) => reject(failure(check, code, message, cause))
        timer = setTimeout(() => end('check-timeout', `it did not end within ${timeout} ms`), timeout)
        id = script.render(element, {
          sitekey: siteKey,
          action,
          theme,
          appearance,
          retry: 'never',
          callback: resolve,
          'before-interactive-callback': () => clearTimeout(timer),
          'timeout-callback': () => end('check-timeout', 'nobody answered'),
          'unsupported-callback': () => end('check-failed', 'it does not support this browser'),
          'error-callback': (code) => {
            end('check-failed', `it ended with ${code}`, code)
            return true
          },
        })
      })
      try {
        return { turnstileToken: await within(solving, signal) }
      } finally {
        clearTimeout(timer)
        script.remove(id)
      }
    })
  })
}

/** Friendly Captcha, version 2. */
export function friendlyCaptcha(options) {
  const check = 'friendlyCaptcha'
  return makeCheck(check, options, 'friendlyCaptchaSiteKey', async (run) => {
    const { siteKey, signal, container, theme, endpoint } = run
    const url = run.url ?? 'https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js'
    const script = await api(check, url, () => globalThis.frcaptcha, run, signal)
    return inPlace(check, container, async (element) => {
      let widget
      const solving = new Promise((resolve, reject) => {
        const end = (code, message, cause) => reject(failure(check, code, message, cause))
        element.addEventListener('frc:widget.complete', ({ detail }) => resolve(detail.response))
        element.addEventListener('frc:widget.expire', () => end('check-timeout', 'its puzzle has expired'))
        element.addEventListener('frc:widget.error', ({ detail: { error } }) =>
          end(
            error?.code === 'network_error' ? 'check-blocked' : 'check-failed',
            `it ended with ${error?.code}`,
            error,
          ),
        )
        widget = script.createWidget({ element, sitekey: siteKey, startMode: 'auto', theme, apiEndpoint: endpoint })
      })
      try {
        return { friendlyCaptchaResponse: await within(solving, signal) }
      } finally {
        widget?.destroy()
      }
    })
  })
}

/** Fingerprint, agent v4. */
export function fingerprint(options) {
  const check = 'fingerprint'
  const blocked = { script_load_fail: 'check-blocked', csp_block: 'check-blocked', network_connection: 'check-blocked' }
  const ended = thrown(check, { ...blocked, client_timeout: 'check-timeout' })
  let tries = 0
  let agent
  return makeCheck(check, options, 'fingerprintPublicAPIKey', async (run) => {
    const { siteKey, signal, timeout, region, endpoints } = run
    const url = run.url ?? `https://fpjscdn.net/v4/${encodeURIComponent(siteKey)}`
    const late = () => failure(check, 'check-blocked', `its agent did not load within ${timeout} ms: ${url}`)
    try {
      // Browsers remember a load that failed, but not for an address with another fragment.
      agent ??= import(/* webpackIgnore: true */ /* @vite-ignore */ tries++ ? `${url}#${tries}` : url)
      const { start } = await within(agent, signal, timeout, late)
      const options = { ...(region && { region }), ...(endpoints && { endpoints }) }
      agent = Promise.resolve({ start })
      return { fingerprintIDResult: await inTime(check, start({ apiKey: siteKey, ...options }).get({ timeout }), run) }
    } catch (error) {
      if (signal?.aborted) throw signal.reason
      // What import() throws is a TypeError.
      const isLoad = error instanceof TypeError
      if (isLoad || error.code === 'check-blocked') agent = undefined
      if (error instanceof ApproovCheckError) throw error
      throw isLoad ? failure(check, 'check-blocked', `its agent did not load: ${url}`, error) : ended(error)
    }
  })
}

/** ALTCHA: the SDK solves a challenge of the service. */
export const altcha = () => async () => ({ altchaPayload: /** @type {const} */ (true) })

/** The first that passes, tried one after the other: not after one that the visitor cancelled, nor after an abort. */
export function firstOf(...checks) {
  if (!checks.length || !checks.every((check) => typeof check === 'function')) {
    throw invalid('firstOf needs at least one check, and checks alone')
  }
  return async (context) => {
    let last
    for (const check of checks) {
      try {
        return await check(context)
      } catch (error) {
        if (context?.signal?.aborted || error?.code === 'check-cancelled') throw error
        last = error
      }
    }
    throw last
  }
}
