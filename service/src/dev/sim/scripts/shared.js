// What the simulated scripts have in common. The service puts it before each of them, in a scope of their own.
// eslint-disable-next-line no-unused-vars
const simulated = (() => {
  const served = Number('SERVED_AT')
  const loaded = performance.now()
  const page = new URLSearchParams(globalThis.location ? location.search : '')

  /** The outcome that was chosen: by the page's script, its URL, the URL of this script, or the site key. */
  const chosen = (siteKey = '', published = {}) => {
    const sim = globalThis.approovSim
    return (
      (typeof sim === 'string' ? sim : sim && sim.outcome) ||
      page.get('approov-sim') ||
      'SCRIPT_OUTCOME' ||
      (/-sim-(.+)$/.exec(siteKey) || [])[1] ||
      published[siteKey] ||
      'pass'
    )
  }

  /** The time by the service's clock, as the real service would note it. */
  const now = () => Math.round(served + performance.now() - loaded)

  const random = (length) =>
    Array.from(
      crypto.getRandomValues(new Uint8Array(length)),
      (byte) => 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'[byte % 62],
    ).join('')

  const base64Url = (text) =>
    btoa(String.fromCharCode(...new TextEncoder().encode(text)))
      .replace(/\+/g, '-')
      .replace(/\//g, '_')
      .replace(/=/g, '')

  return {
    now,
    random,

    /** Whether this script was kept from the page; then it does nothing. */
    isBlocked: () => chosen() === 'script-blocked',

    /**
     * How the next challenge ends: `token` with the outcome that the server then gives, or in the page: `timeout`, `never`,
     * `reject` (with a code of the real script, if one was chosen), `script-blocked`.
     */
    ending(siteKey, published) {
      const name = chosen(siteKey, published)
      const [, kind, code] = /^(timeout|never|script-blocked|reject)(?::(.+))?$/.exec(name) || []
      return kind ? { kind, code } : { kind: 'token', outcome: name === 'low-score' ? 'low' : name }
    },

    /** Whether a visitor is asked to click, because the page says `window.approovSim = { interactive: true }`. */
    isInteractive: () => Boolean(globalThis.approovSim && globalThis.approovSim.interactive),

    /** What the server takes for solved, or not: the parts say where and for what. */
    token: (outcome, parts) => [`sim-${outcome}-${now()}x${random(12)}`, ...parts.map(base64Url)].join('.'),

    /** Options of a widget: of the element and of the call, as `errorcallback`, however they are spelt. */
    options(element, options) {
      const all = {}
      for (const source of [element.dataset, options || {}])
        for (const [name, value] of Object.entries(source)) all[name.replaceAll('-', '').toLowerCase()] = value
      return all
    },

    /** Calls a function, or the one of this name, if there is one. */
    call(callback, ...values) {
      const known = typeof callback === 'string' ? globalThis[callback] : callback
      return typeof known === 'function' ? known(...values) : undefined
    },

    /** The field of a form that takes the result. */
    field(element, name) {
      const field = document.createElement('textarea')
      field.name = name
      field.hidden = true
      element.append(field)
      return field
    },

    /** What a visitor clicks. */
    checkbox(element, text, onClick) {
      const box = document.createElement('button')
      box.type = 'button'
      box.setAttribute('role', 'checkbox')
      box.setAttribute('aria-checked', 'false')
      box.textContent = text
      box.addEventListener('click', onClick)
      element.append(box)
      return box
    },

    /** After the life of a result, milliseconds, or the `lifetime` of `window.approovSim`. */
    whenExpired: (milliseconds, callback) =>
      setTimeout(callback, (globalThis.approovSim && globalThis.approovSim.lifetime) || milliseconds),

    /** When there is a page to look at. */
    whenParsed(callback) {
      if (document.readyState === 'loading') addEventListener('DOMContentLoaded', callback)
      else callback()
    },
  }
})()
