// Simulated reCAPTCHA (v2 and v3), for development: same calls, same results, no challenge.
;(() => {
  const script = /** @type {HTMLScriptElement} */ (document.currentScript)
  const params = new URL(script.src).searchParams
  const encode = (text) => btoa(text).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
  const unique = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, '0')).join('')
  const outcome = () => (globalThis.approovSim && globalThis.approovSim.outcome) || params.get('outcome') || 'pass'
  const widgets = []
  const token = (action) => {
    const parts = [`sim-${outcome()}-${unique()}`, encode(location.hostname)]
    if (action) parts.push(encode(action))
    return parts.join('.')
  }
  const find = (id = 0) => {
    if (!widgets[id]) throw new Error('Invalid reCAPTCHA client id: ' + id)
    return widgets[id]
  }
  const solve = (widget) => {
    widget.response = token()
    if (widget.field) widget.field.value = widget.response
    if (widget.box) widget.box.setAttribute('aria-checked', 'true')
    const callback = widget.options.callback
    if (typeof callback === 'function') callback(widget.response)
    else if (callback && typeof globalThis[callback] === 'function') globalThis[callback](widget.response)
    return widget.response
  }
  const grecaptcha = {
    ready(callback) {
      setTimeout(callback)
    },
    render(container, options = {}) {
      const element = typeof container === 'string' ? document.getElementById(container) : container
      if (!element) throw new Error('reCAPTCHA placeholder element must be an element or id')
      const widget = { options: { ...element.dataset, ...options }, response: '' }
      widget.field = document.createElement('textarea')
      widget.field.name = 'g-recaptcha-response'
      widget.field.hidden = true
      element.append(widget.field)
      if (widget.options.size !== 'invisible') {
        const box = document.createElement('button')
        box.type = 'button'
        box.setAttribute('role', 'checkbox')
        box.setAttribute('aria-checked', 'false')
        box.textContent = "I'm not a robot (simulated reCAPTCHA)"
        box.addEventListener('click', () => solve(widget))
        element.append(box)
        widget.box = box
      }
      element.dataset.recaptchaWidgetId = String(widgets.length)
      widgets.push(widget)
      return widgets.length - 1
    },
    execute(target, options) {
      return new Promise((resolve, reject) =>
        setTimeout(() => {
          try {
            resolve(typeof target === 'string' ? token(options && options.action) : solve(find(target)))
          } catch (error) {
            reject(error)
          }
        }),
      )
    },
    getResponse: (id) => find(id).response,
    reset(id) {
      const widget = find(id)
      widget.response = ''
      if (widget.field) widget.field.value = ''
      if (widget.box) widget.box.setAttribute('aria-checked', 'false')
    },
  }
  globalThis.grecaptcha = grecaptcha
  const start = () => {
    if ((params.get('render') || 'onload') === 'onload') {
      for (const element of document.querySelectorAll('div.g-recaptcha')) {
        if (!element.dataset.recaptchaWidgetId) grecaptcha.render(element)
      }
    }
    const onload = params.get('onload')
    if (onload && typeof globalThis[onload] === 'function') globalThis[onload]()
  }
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', start)
  else start()
})()
