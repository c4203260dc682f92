// Simulated hCaptcha widget, for development: same calls, same results, no challenge.
;(() => {
  const script = /** @type {HTMLScriptElement} */ (document.currentScript)
  const params = new URL(script.src).searchParams
  const encode = (text) => btoa(text).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
  const unique = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, '0')).join('')
  const outcome = () => (globalThis.approovSim && globalThis.approovSim.outcome) || params.get('outcome') || 'pass'
  const widgets = new Map()

  const find = (id) => {
    const widget = widgets.get(id === undefined ? widgets.keys().next().value : String(id))
    if (!widget) throw new Error('[hCaptcha] no widget: call render first')
    return widget
  }
  const solve = (widget) => {
    widget.response = `sim-${outcome()}-${unique()}.${encode(location.hostname)}`
    widget.key = `E0_${unique()}`
    if (widget.field) widget.field.value = widget.response
    if (widget.box) widget.box.setAttribute('aria-checked', 'true')
    const callback = widget.options.callback
    if (typeof callback === 'function') callback(widget.response)
    else if (callback && typeof globalThis[callback] === 'function') globalThis[callback](widget.response)
    return { response: widget.response, key: widget.key }
  }
  const hcaptcha = {
    render(container, options = {}) {
      const element = typeof container === 'string' ? document.getElementById(container) : container
      if (!element) throw new Error('[hCaptcha] the container does not exist')
      const id = `sim${widgets.size}`
      const widget = { options: { ...element.dataset, ...options }, response: '', key: '' }
      widget.field = document.createElement('textarea')
      widget.field.name = 'h-captcha-response'
      widget.field.hidden = true
      element.append(widget.field)
      if (widget.options.size !== 'invisible') {
        const box = document.createElement('button')
        box.type = 'button'
        box.setAttribute('role', 'checkbox')
        box.setAttribute('aria-checked', 'false')
        box.textContent = 'I am human (simulated hCaptcha)'
        box.addEventListener('click', () => solve(widget))
        element.append(box)
        widget.box = box
      }
      element.dataset.hcaptchaWidgetId = id
      widgets.set(id, widget)
      return id
    },
    execute(id, options) {
      if (id !== null && typeof id === 'object') {
        options = id
        id = undefined
      }
      const widget = find(id)
      if (!(options && options.async)) {
        setTimeout(() => solve(widget))
        return undefined
      }
      return new Promise((resolve) => setTimeout(() => resolve(solve(widget))))
    },
    getResponse: (id) => find(id).response,
    getRespKey: (id) => find(id).key,
    reset(id) {
      const widget = find(id)
      widget.response = widget.key = ''
      if (widget.field) widget.field.value = ''
      if (widget.box) widget.box.setAttribute('aria-checked', 'false')
    },
    remove(id) {
      widgets.delete(String(id))
    },
  }
  globalThis.hcaptcha = hcaptcha
  // As the real script does, unless it is told not to.
  if (params.get('recaptchacompat') !== 'off') globalThis.grecaptcha = hcaptcha
  const renderAll = () => {
    for (const element of document.querySelectorAll('div.h-captcha')) {
      if (!element.dataset.hcaptchaWidgetId) hcaptcha.render(element)
    }
  }
  const start = () => {
    if (params.get('render') !== 'explicit') {
      renderAll()
      // Elements that a later script adds are rendered when they come.
      new MutationObserver(renderAll).observe(document.documentElement, { childList: true, subtree: true })
    }
    const onload = params.get('onload')
    if (onload && typeof globalThis[onload] === 'function') globalThis[onload]()
  }
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', start)
  else start()
})()
