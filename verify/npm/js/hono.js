import { addHeaders, createVerifier, refusal } from './index.js'

/** Middleware that lets good requests pass, with `c.get('approov')`. */
export function approov(options) {
  const verifier = createVerifier(options)
  return async (c, next) => {
    const verdict = await verifier.verify(c.req.raw)
    if (!verifier.admits(verdict)) return refusal(/** @type {import('./index.js').Refused} */ (verdict))
    c.set('approov', verdict)
    await next()
    addHeaders(
      verdict,
      (name, value) => c.header(name, value, { append: true }),
      (name, value) => c.header(name, value),
    )
  }
}
