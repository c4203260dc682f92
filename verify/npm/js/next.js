import { createVerifier } from './index.js'

/** Makes route handlers that are called for good requests only: `export const POST = protect((request, { approov }) => …)`. */
export function approov(options) {
  const verifier = createVerifier(options)
  return (handler) =>
    verifier.protect((request, verdict, /** @type {object} */ context) =>
      handler(request, { ...context, approov: verdict }),
    )
}
