/// <reference path="./shared.d.ts" />
// Simulated hCaptcha widget, for development: same calls, same results, no challenge.
;(() => {
  if (simulated.isBlocked()) return
  const script = /** @type {HTMLScriptElement} */ (document.currentScript)
  const params = new URL(script.src).searchParams
  const isImplicit = params.get('render') !== 'explicit'
  // As the real script, unless it is told not to.
  const isCompatible = params.get('recaptchacompat') !== 'off'
  const lifetime = 120_000
  /** Test keys that hCaptcha publishes, which do not pass. */
  const published = { '30000000-ffff-ffff-ffff-000000000003': 'bot' }
  const widgets = new Map()
  let rendered = 0

  const known = (id) => {
    if (isImplicit) renderAll()
    return id === undefined || id === null || id === '' ? widgets.values().next().value : widgets.get(String(id))
  }
  const find = (id) => {
    const widget = known(id)
    if (!widget)
      throw new Error(`[hCaptcha] ${widgets.size ? `invalid captcha ID: ${id}` : 'no widget: call render first'}`)
    return widget
  }
  const put = (widget, response, key) => {
    clearTimeout(widget.timer)
    widget.response = response
    widget.key = key
    for (const field of widget.fields) field.value = response
    if (widget.box) widget.box.setAttribute('aria-checked', String(response !== ''))
  }
  const run = (widget) =>
    new Promise((resolve, reject) => {
      const { options } = widget
      const failed = (code) => {
        widget.pending.delete(failed)
        if (code === 'challenge-closed') simulated.call(options.closecallback)
        else if (code === 'challenge-expired') simulated.call(options.chalexpiredcallback)
        else simulated.call(options.errorcallback, code)
        reject(code)
      }
      const end = () => {
        if (!widget.pending.has(failed)) return
        const { kind, outcome, code } = simulated.ending(options.sitekey, published)
        if (kind === 'token') {
          widget.pending.delete(failed)
          put(widget, simulated.token(outcome, [location.hostname]), `E0_${simulated.random(24)}`)
          widget.timer = simulated.whenExpired(lifetime, () => {
            put(widget, '', '')
            simulated.call(options.expiredcallback)
          })
          simulated.call(options.callback, widget.response, widget.key)
          resolve({ response: widget.response, key: widget.key })
        } else if (kind === 'script-blocked') {
          failed('network-error')
        } else if (kind !== 'never') {
          simulated.call(options.opencallback)
          failed(kind === 'timeout' ? 'challenge-expired' : code || 'challenge-error')
        }
      }
      widget.pending.add(failed)
      setTimeout(() => {
        if (!simulated.isInteractive()) {
          end()
        } else if (widget.pending.has(failed)) {
          simulated.call(options.opencallback)
          const challenge = simulated.checkbox(widget.element, 'A challenge (simulated hCaptcha)', () => {
            challenge.remove()
            end()
          })
          widget.challenges.push(challenge)
        }
      })
    })
  const hcaptcha = {
    render(container, more) {
      const element = typeof container === 'string' ? document.getElementById(container) : container
      if (!element) throw new Error('[hCaptcha] the container does not exist')
      if (widgets.has(element.dataset.hcaptchaWidgetId)) {
        console.error('Only one captcha is permitted per parent container.')
        return element.dataset.hcaptchaWidgetId
      }
      const id = `sim${rendered++}`
      const options = simulated.options(element, more)
      const names = isCompatible ? ['g-recaptcha-response', 'h-captcha-response'] : ['h-captcha-response']
      const fields = names.map((name) => simulated.field(element, name))
      const widget = {
        element,
        options,
        fields,
        response: '',
        key: '',
        box: undefined,
        timer: undefined,
        pending: new Set(),
        challenges: [],
      }
      if (options.size !== 'invisible')
        widget.box = simulated.checkbox(element, 'I am human (simulated hCaptcha)', () => run(widget).catch(() => {}))
      element.dataset.hcaptchaWidgetId = id
      widgets.set(id, widget)
      return id
    },
    execute(id, options) {
      if (id !== null && typeof id === 'object') {
        options = id
        id = undefined
      }
      if (options && options.async) {
        const widget = known(id)
        return widget ? run(widget) : Promise.reject(widgets.size ? 'invalid-captcha-id' : 'missing-captcha')
      }
      run(find(id)).catch(() => {})
      return undefined
    },
    getResponse: (id) => find(id).response,
    getRespKey: (id) => find(id).key,
    setData(id, data) {
      if (id !== null && typeof id === 'object') {
        data = id
        id = undefined
      }
      if (!data || typeof data !== 'object') throw new Error('[hCaptcha] setData: invalid data')
      Object.assign(find(id).options, data)
    },
    close(id) {
      for (const fail of [...find(id).pending]) fail('challenge-closed')
    },
    reset(id) {
      const widget = find(id)
      widget.pending.clear()
      put(widget, '', '')
    },
    remove(id) {
      const widget = find(id)
      widget.pending.clear()
      clearTimeout(widget.timer)
      for (const part of [...widget.fields, ...widget.challenges, widget.box]) if (part) part.remove()
      for (const [name, other] of widgets) if (other === widget) widgets.delete(name)
    },
  }
  globalThis.hcaptcha = hcaptcha
  if (isCompatible) globalThis.grecaptcha = hcaptcha

  const renderAll = () => {
    for (const element of document.querySelectorAll('.h-captcha'))
      if (!element.dataset.hcaptchaWidgetId) hcaptcha.render(element)
  }
  simulated.whenParsed(() => {
    if (isImplicit) {
      renderAll()
      // Elements that a later script adds are rendered when they come.
      new MutationObserver(renderAll).observe(document.documentElement, { childList: true, subtree: true })
    }
    simulated.call(params.get('onload'))
  })
})()
