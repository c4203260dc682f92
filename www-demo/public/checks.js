// The three check services: how a page gets a result from each, and which option of the SDK takes it.

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
    script: (key) => `https://fpjscdn.net/v3/${encodeURIComponent(key)}`,
    simulated: (simulators, key) => `${simulators}/fingerprint/v3/${encodeURIComponent(key)}`,
    async run({ script }) {
      const agent = await import(script).then((Fingerprint) => Fingerprint.load())
      const { visitorId, requestId } = await agent.get()
      return { visitorId, requestId }
    },
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
