import { addHeaders, createVerifier } from './index.js'
import { describe, peekBody } from './node.js'

/** Middleware that lets good requests pass, with `request.approov`. For Express and whatever takes `(request, response, next)`. */
export function approov(options) {
  const verifier = createVerifier(options)
  return async (request, response, next) => {
    try {
      const readBody = () => bodyOf(request, verifier.bodyLimit)
      const verdict = await verifier.check({ ...describe(request), readBody })
      const append = (name, value) => response.appendHeader(name, value)
      const set = (name, value) => response.setHeader(name, value)
      if (!verifier.admits(verdict)) {
        const { status, headers, body } = /** @type {import('./index.js').Refused} */ (verdict)
        for (const [name, value] of Object.entries(headers)) set(name, value)
        response.statusCode = status
        response.end(body)
        return
      }
      addHeaders(verdict, append, set)
      request.approov = verdict
      next()
    } catch (error) {
      next(error)
    }
  }
}

async function bodyOf(request, limit) {
  // Of another middleware that kept the bytes.
  if (request.rawBody instanceof Uint8Array) return request.rawBody
  const body = await peekBody(request, limit)
  if (body === undefined) {
    throw new Error(
      'approov-verify: the body was read before its proof could be compared with it; put approov() in front of express.json() and other parsers',
    )
  }
  return body
}
