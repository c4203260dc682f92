/// <reference path="./shared.d.ts" />
// Simulated Friendly Captcha widget (v2), for development: same calls, same events, no puzzle.
;(() => {
  if (simulated.isBlocked()) return
  const lifetime = 1_200_000
  const widgets = new Map()

  const create = ({ element, sitekey, formFieldName = 'frc-captcha-response', startMode = 'focus' }) => {
    if (!element) throw new Error('No element provided to mount widget under.')
    const id = `w_${simulated.random(12)}`
    let state = 'init'
    let response = '.UNINITIALIZED'
    let timer
    let box
    /** Counts challenges, so that one that was given up changes nothing. */
    let round = 0
    // A form that says `data-form-field-name=""` wants none.
    const field = formFieldName ? simulated.field(element, formFieldName) : undefined

    const tell = (name, more = {}) =>
      element.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: { name, response, state, id, ...more } }))
    const set = (next, text, more) => {
      const hasChanged = state !== next
      state = next
      response = text
      if (field) field.value = text
      if (box) box.setAttribute('aria-checked', String(state === 'completed'))
      if (hasChanged) tell('frc:widget.statechange', more)
      const name = { expired: 'expire', completed: 'complete', error: 'error', reset: 'reset' }[state]
      if (name) tell(`frc:widget.${name}`, more)
    }
    const run = async (isClicked = false) => {
      if (handle.isDestroyed) throw new Error('Can not start destroyed widget.')
      clearTimeout(timer)
      const mine = (round += 1)
      const mode = simulated.isInteractive() ? 'interactive' : 'noninteractive'
      if (mode === 'interactive' && !isClicked) {
        set('activated', '.ACTIVATED', { mode })
        return
      }
      const steps = { requesting: '.REQUESTING', solving: '.SOLVING', verifying: '.VERIFYING' }
      const { kind, outcome, code } = simulated.ending(sitekey)
      for (const [next, text] of Object.entries(steps)) {
        await new Promise((resolve) => setTimeout(resolve))
        if (mine !== round) return
        set(next, text, { mode })
      }
      if (kind === 'token') {
        set('completed', simulated.token(outcome, [location.hostname]))
        timer = simulated.whenExpired(lifetime, () => set('expired', '.EXPIRED'))
      } else if (kind === 'timeout') {
        set('expired', '.EXPIRED')
      } else if (kind !== 'never') {
        const isUnreachable = !code || code === 'network_error'
        const error = { code: code || 'network_error', title: 'Simulated', detail: 'simulated error' }
        set('error', isUnreachable ? '.ERROR.UNREACHABLE' : '.ERROR', { error })
      }
    }
    const prepare = () => {
      const form = element.closest('form')
      if (startMode === 'auto') run()
      else if (startMode === 'focus' && form) form.addEventListener('focusin', () => run(), { once: true })
    }
    const handle = {
      id,
      sitekey,
      startMode,
      isDestroyed: false,
      ready: new Promise((resolve) => setTimeout(resolve)),
      start: () => void run(),
      reset(opts = { trigger: 'root' }) {
        if (handle.isDestroyed) throw new Error('Can not reset destroyed widget.')
        round += 1
        clearTimeout(timer)
        set('reset', '.RESET', { trigger: opts.trigger })
        prepare()
      },
      destroy() {
        round += 1
        clearTimeout(timer)
        handle.isDestroyed = true
        set('destroyed', '.DESTROYED')
        element.replaceChildren()
        widgets.delete(id)
      },
      getState: () => state,
      getResponse: () => response,
      getElement: () => element,
      addEventListener: (type, listener, options) => element.addEventListener(type, listener, options),
      removeEventListener: (type, listener, options) => element.removeEventListener(type, listener, options),
    }
    element.frcWidget = handle
    widgets.set(id, handle)
    if (field) field.value = response
    box = simulated.checkbox(element, 'I am human (simulated Friendly Captcha)', () => run(true))
    set('init', '.UNCONNECTED')
    handle.ready.then(() => {
      if (handle.isDestroyed || state !== 'init') return
      set('unactivated', '.UNSTARTED')
      prepare()
    })
    return handle
  }
  const frcaptcha = {
    attached: Promise.resolve([]),
    attach(elements = document.querySelectorAll('.frc-captcha')) {
      /** @type {any[]} */
      const list = elements instanceof HTMLElement ? [elements] : [...elements]
      const handles = list
        .filter((element) => element && !element.frcWidget)
        .map((element) => {
          const { sitekey, formFieldName, start } = element.dataset
          return create({ element, sitekey, formFieldName, startMode: start })
        })
      frcaptcha.attached = Promise.resolve(handles)
      return handles
    },
    createWidget: create,
    getAllWidgets: () => [...widgets.values()],
    getWidgetById: (id) => widgets.get(id),
    clear() {
      for (const handle of [...widgets.values()]) handle.destroy()
    },
  }
  globalThis.frcaptcha = frcaptcha
  simulated.whenParsed(() => frcaptcha.attach())
})()
