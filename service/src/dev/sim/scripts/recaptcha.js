/// <reference path="./shared.d.ts" />
// Simulated reCAPTCHA (v2, v3 and Enterprise), for development: same calls, same results, no challenge.
;(() => {
  if (simulated.isBlocked()) return
  const script = /** @type {HTMLScriptElement} */ (document.currentScript)
  const { pathname, searchParams: params } = new URL(script.src)
  const isEnterprise = pathname.endsWith('/enterprise.js')
  const lifetime = 120_000
  const widgets = []

  const find = (id = 0) => {
    if (!widgets[id]) throw new Error('Invalid reCAPTCHA client id: ' + id)
    return widgets[id]
  }
  const put = (widget, response) => {
    clearTimeout(widget.timer)
    widget.response = response
    widget.field.value = response
    if (widget.box) widget.box.setAttribute('aria-checked', String(response !== ''))
  }
  /** A token, or what the real script rejects with: a string or nothing. */
  const challenge = (siteKey, action, onFailed = () => {}) =>
    new Promise((resolve, reject) =>
      setTimeout(() => {
        const { kind, outcome, code } = simulated.ending(siteKey)
        // Only Enterprise compares site keys; for it, the action has its place even when there is none.
        const parts = isEnterprise ? [action || '', siteKey || ''] : action ? [action] : []
        if (kind === 'token') {
          resolve(simulated.token(outcome, [location.hostname, ...parts]))
        } else if (kind !== 'never') {
          onFailed()
          reject(kind === 'timeout' ? 'Timeout' : code || null)
        }
      }),
    )
  const solve = async (widget, action = widget.options.action) => {
    const { options } = widget
    const failed = () => simulated.call(options.errorcallback)
    const response = await challenge(options.sitekey, action, failed)
    put(widget, response)
    widget.timer = simulated.whenExpired(lifetime, () => {
      put(widget, '')
      simulated.call(options.expiredcallback)
    })
    simulated.call(options.callback, response)
    return response
  }
  const api = {
    ready(callback) {
      setTimeout(callback)
    },
    render(container, more) {
      const element = typeof container === 'string' ? document.getElementById(container) : container
      if (!element) throw new Error('reCAPTCHA placeholder element must be an element or id')
      const options = simulated.options(element, more)
      const field = simulated.field(element, 'g-recaptcha-response')
      const widget = { options, field, response: '', box: undefined, timer: undefined }
      if (options.size !== 'invisible')
        widget.box = simulated.checkbox(element, "I'm not a robot (simulated reCAPTCHA)", () =>
          solve(widget).catch(() => {}),
        )
      element.dataset.recaptchaWidgetId = String(widgets.length)
      widgets.push(widget)
      return widgets.length - 1
    },
    execute: async (target, options) =>
      typeof target === 'string'
        ? challenge(target, options && options.action)
        : solve(find(target), options && options.action),
    getResponse: (id) => find(id).response,
    reset: (id) => put(find(id), ''),
  }
  // Each keeps the other.
  const other = globalThis.grecaptcha
  if (!isEnterprise) globalThis.grecaptcha = other && other.enterprise ? { ...api, enterprise: other.enterprise } : api
  else if (other) other.enterprise = api
  else globalThis.grecaptcha = { enterprise: api }

  simulated.whenParsed(() => {
    if ((params.get('render') || 'onload') === 'onload') {
      for (const element of document.querySelectorAll('.g-recaptcha'))
        if (!element.dataset.recaptchaWidgetId) api.render(element)
    }
    simulated.call(params.get('onload'))
  })
})()
