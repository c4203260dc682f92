// The checks as an app without the SDK's `checks` runs them: how a page gets a result from each, and the option that takes it.

/**
 * Each check: the setting with its key, the option of `fetchToken` that takes its result, the script of the real
 * service, and `run`, which resolves to the result.
 */
export const CHECKS = {
  hcaptcha: {
    key: 'hcaptchaSiteKey',
    option: 'hcaptchaToken',
    // recaptchacompat=off: or it takes the place of reCAPTCHA's own `grecaptcha`.
    script: () => 'https://js.hcaptcha.com/1/api.js?render=explicit&recaptchacompat=off',
    simulated: (simulators) => `${simulators}/hcaptcha/1/api.js?render=explicit&recaptchacompat=off`,
    async run({ key, script, widget }) {
      await loadScript(script)
      widget.id ??= globalThis.hcaptcha.render(widget.place(), { sitekey: key, size: 'invisible' })
      globalThis.hcaptcha.reset(widget.id)
      return globalThis.hcaptcha.execute(widget.id, { async: true })
    },
  },
  recaptcha: {
    key: 'recaptchaSiteKey',
    option: 'recaptchaToken',
    script: (key) => `https://www.google.com/recaptcha/api.js?render=${encodeURIComponent(key)}`,
    simulated: (simulators, key) => `${simulators}/recaptcha/api.js?render=${encodeURIComponent(key)}`,
    async run({ key, script }) {
      await loadScript(script)
      await new Promise((resolve) => globalThis.grecaptcha.ready(resolve))
      return globalThis.grecaptcha.execute(key, { action: 'demo' })
    },
  },
  fingerprint: {
    key: 'fingerprintPublicAPIKey',
    option: 'fingerprintIDResult',
    script: (key) => `https://fpjscdn.net/v4/${encodeURIComponent(key)}`,
    simulated: (simulators, key) => `${simulators}/fingerprint/v4/${encodeURIComponent(key)}`,
    async run({ script }) {
      const Fingerprint = await import(script)
      return Fingerprint.start().get()
    },
  },
  turnstile: {
    key: 'turnstileSiteKey',
    option: 'turnstileToken',
    script: () => 'https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit',
    simulated: (simulators) => `${simulators}/turnstile/v0/api.js?render=explicit`,
    async run({ key, script, widget }) {
      await loadScript(script)
      const { turnstile } = /** @type {any} */ (globalThis)
      if (widget.id !== undefined) turnstile.remove(widget.id)
      return new Promise((resolve, reject) => {
        const failed = (code) => reject(new Error(`Turnstile ended with ${code}`))
        widget.id = turnstile.render(widget.place(), {
          sitekey: key,
          action: 'demo',
          callback: resolve,
          'error-callback': failed,
          'timeout-callback': () => failed('a time-out'),
        })
      })
    },
  },
  friendly: {
    key: 'friendlyCaptchaSiteKey',
    option: 'friendlyCaptchaResponse',
    script: () => 'https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js',
    simulated: (simulators) => `${simulators}/friendly/site.js`,
    async run({ key, script, widget }) {
      await loadScript(script)
      widget.id?.destroy()
      const element = widget.place()
      return new Promise((resolve, reject) => {
        element.addEventListener('frc:widget.complete', (event) => resolve(event.detail.response))
        element.addEventListener('frc:widget.error', (event) => reject(new Error(event.detail.error.code)))
        widget.id = globalThis.frcaptcha.createWidget({ element, sitekey: key, startMode: 'auto' })
      })
    },
  },
  altcha: {
    key: 'altchaSiteKey',
    option: 'altchaPayload',
    // Nothing is loaded: the SDK solves a challenge of the service.
    script: () => '',
    simulated: () => '',
    run: async () => true,
  },
}

const loading = new Map()

/** Loads a classic script once; a failed load can be tried again. */
function loadScript(url) {
  if (!loading.has(url)) {
    /** @type {Promise<void>} */
    const load = new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement('script'), { src: url, async: true })
      script.onload = () => resolve()
      script.onerror = () => reject(new Error(`the script of the check service did not load: ${url}`))
      document.head.append(script)
    })
    loading.set(url, load)
    load.catch(() => loading.delete(url))
  }
  return loading.get(url)
}
