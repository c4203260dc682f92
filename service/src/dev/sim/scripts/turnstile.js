/// <reference path="./shared.d.ts" />
// Simulated Turnstile widget, for development: same calls, same results, no challenge.
;(() => {
  if (simulated.isBlocked()) return
  const script = /** @type {HTMLScriptElement} */ (document.currentScript)
  const params = new URL(script.src).searchParams
  const lifetime = 300_000
  /** Test keys that Cloudflare publishes: all of them make the same token, those with `2x` none. */
  const published = { '2x00000000000000000000AB': 'bot', '2x00000000000000000000BB': 'bot' }
  const isPublished = (siteKey) => /^[123]x0{20}(AA|AB|BB|FF)$/.test(siteKey)
  const DUMMY = 'XXXX.DUMMY.TOKEN.XXXX'
  /** Codes of the client: what a challenge ends with that gives no token. */
  const codes = { bot: '600010', reject: '300030', 'script-blocked': '200500' }
  const widgets = new Map()

  const elementOf = (container) => (typeof container === 'string' ? document.querySelector(container) : container)
  const find = (id) => {
    if (id === undefined) return widgets.values().next().value
    const element = widgets.has(id) ? undefined : id instanceof HTMLElement ? id : document.querySelector(String(id))
    return widgets.get(id) || [...widgets.values()].find((widget) => element && widget.element === element)
  }
  const put = (widget, response) => {
    clearTimeout(widget.timer)
    clearTimeout(widget.retry)
    widget.response = response
    if (widget.field) widget.field.value = response
    if (widget.box) widget.box.setAttribute('aria-checked', String(response !== ''))
  }
  const failed = (widget, code) => {
    widget.isRunning = false
    const { options } = widget
    if (code === 'unsupported') {
      simulated.call(options.unsupportedcallback)
      return
    }
    if (!simulated.call(options.errorcallback, code)) console.warn(`[Cloudflare Turnstile] Error: ${code}.`)
    if (options.retry !== 'never' && !code.startsWith('110'))
      widget.retry = setTimeout(() => run(widget), Number(options.retryinterval) || 8000)
  }
  const expired = (widget) => {
    put(widget, '')
    widget.isExpired = true
    simulated.call(widget.options.expiredcallback, widget.options.sitekey)
    if ((widget.options.refreshexpired || 'auto') === 'auto') run(widget)
  }
  const solved = (widget, response) => {
    widget.isRunning = widget.isExpired = false
    put(widget, response)
    widget.timer = simulated.whenExpired(lifetime, () => expired(widget))
    simulated.call(widget.options.callback, response, false)
  }
  const end = (widget) => {
    const { options } = widget
    const { kind, outcome, code } = simulated.ending(options.sitekey, published)
    // A visitor that is taken for a bot gets no token.
    if (kind === 'token' && outcome !== 'bot') {
      const parts = [location.hostname, options.action || '', options.cdata || '']
      solved(widget, isPublished(options.sitekey) ? DUMMY : simulated.token(outcome, parts))
    } else if (kind === 'timeout') {
      widget.isRunning = false
      simulated.call(options.timeoutcallback)
    } else if (kind !== 'never') {
      failed(widget, code || codes[kind] || codes.bot)
    }
  }
  const run = (widget) => {
    if (widget.isRunning) return
    widget.isRunning = true
    const round = (widget.round += 1)
    setTimeout(() => {
      if (widget.round !== round || !widgets.has(widget.id)) return
      const { options } = widget
      if (!/^[\w-]{0,32}$/.test(options.action || '')) failed(widget, '110420')
      else if (!/^[\w-]{0,255}$/.test(options.cdata || '')) failed(widget, '110430')
      else if (!widget.isInteractive) end(widget)
      else {
        simulated.call(options.beforeinteractivecallback)
        widget.box ??= simulated.checkbox(widget.element, 'Verify you are human (simulated Turnstile)', () => {
          if (!widget.isRunning) return
          simulated.call(options.afterinteractivecallback)
          end(widget)
        })
      }
    })
  }
  const turnstile = {
    ready(callback) {
      if (typeof callback !== 'function') throw new Error('[Cloudflare Turnstile] turnstile.ready() expects a function')
      simulated.whenParsed(() => setTimeout(callback))
    },
    render(container, more) {
      const element = elementOf(container)
      if (!element) throw new Error(`[Cloudflare Turnstile] Unable to find a container for "${container}".`)
      if ([...widgets.values()].some((widget) => widget.element === element)) {
        console.warn('[Cloudflare Turnstile] Turnstile has already been rendered in this container.')
        return undefined
      }
      const options = simulated.options(element, more)
      if (typeof options.sitekey !== 'string' || options.sitekey === '')
        throw new Error('[Cloudflare Turnstile] Invalid or missing type for parameter "sitekey", expected "string".')
      const id = `cf-chl-widget-${simulated.random(5).toLowerCase()}`
      const hasField = String(options.responsefield) !== 'false'
      const field = hasField
        ? simulated.field(element, options.responsefieldname || 'cf-turnstile-response')
        : /** @type {HTMLTextAreaElement} */ (undefined)
      // The test key that forces a challenge, or whoever asks for one.
      const isInteractive = options.sitekey === '3x00000000000000000000FF' || simulated.isInteractive()
      const widget = { id, element, options, field, isInteractive, round: 0, response: '', isRunning: false }
      widgets.set(id, { ...widget, isExpired: false, box: undefined, timer: undefined, retry: undefined })
      if (options.execution !== 'execute') run(widgets.get(id))
      return id
    },
    execute(container, more) {
      let widget = find(container)
      if (!widget) {
        const id = turnstile.render(container, { execution: 'execute', ...more })
        widget = widgets.get(id)
      }
      if (widget.response) console.warn('[Cloudflare Turnstile] Call to execute() on a widget that is already executed')
      else run(widget)
    },
    getResponse(id) {
      const widget = find(id)
      return widget && widget.response ? widget.response : undefined
    },
    isExpired(id) {
      const widget = find(id)
      return Boolean(widget && widget.isExpired)
    },
    reset(id) {
      const widget = find(id)
      if (!widget) {
        console.warn('[Cloudflare Turnstile] Nothing to reset found for provided container')
        return
      }
      put(widget, '')
      widget.round += 1
      widget.isRunning = widget.isExpired = false
      if (widget.options.execution !== 'execute') run(widget)
    },
    remove(id) {
      const widget = find(id)
      if (!widget) {
        console.warn('[Cloudflare Turnstile] Nothing to remove found for the provided container.')
        return
      }
      put(widget, '')
      for (const part of [widget.field, widget.box]) if (part) part.remove()
      widgets.delete(widget.id)
    },
  }
  globalThis.turnstile = turnstile
  // The real script has this, too, when it is told so.
  if (params.get('compat') === 'recaptcha') globalThis.grecaptcha = turnstile

  simulated.whenParsed(() => {
    if (params.get('render') !== 'explicit')
      for (const element of document.querySelectorAll('.cf-turnstile')) turnstile.render(element)
    simulated.call(params.get('onload'))
  })
})()
