// The errors of the SDK. Every entry of the package imports this file, so that their classes are the same.

const { defineProperty } = Reflect

/** Whatever setters the page puts on prototypes. */
const set = (object, name, value) =>
  defineProperty(
    object,
    name,
    /** @type {any} */ ({ __proto__: null, value, writable: true, enumerable: true, configurable: true }),
  )

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  /** @param {string} message @param {any} [properties] all but `code` and `retryable` only where there are some */
  constructor(message, properties) {
    // What the page adds to Object.prototype is none of these.
    const {
      code = 'internal',
      retryable = false,
      cause,
      errors,
      retryAfter,
      check,
    } = /** @type {any} */ ({ __proto__: null, ...properties })
    super(message, cause === undefined ? undefined : { cause })
    set(this, 'code', code)
    set(this, 'retryable', retryable)
    if (errors !== undefined) set(this, 'errors', errors)
    if (retryAfter !== undefined) set(this, 'retryAfter', retryAfter)
    if (check !== undefined) set(this, 'check', check)
    nameCodes(this)
  }
}

/** Consoles print the stack, and not the properties: the codes are in its first line. */
function nameCodes(error) {
  const { name, message, code, errors, stack } = error
  if (typeof stack !== 'string') return
  const codes = [code, ...(error instanceof ApproovServiceError ? Object.keys(errors ?? {}) : [])].join(', ')
  const line = `${name}: ${message}`
  // The stack of V8 begins with the name and the message, those of others do not.
  const frames = /^\w*Error\b/.test(stack) ? stack.slice(stack.indexOf(message) + message.length) : `\n${stack}`
  Object.defineProperty(error, 'stack', { value: `${line} (${codes})${frames}`, writable: true, configurable: true })
}

/** There is no session, or it has ended: initialise one and pass fresh check results. */
export class ApproovSessionError extends ApproovError {}

/** Communication with the Approov service failed; `errors` is the cause. */
export class ApproovFetchError extends ApproovError {}

/** The Approov service reported errors; `errors` maps their codes to details. */
export class ApproovServiceError extends ApproovError {}

/** A check could not be passed. */
export class ApproovCheckError extends ApproovError {}

/** By name. */
export const classes = Object.freeze({
  __proto__: null,
  ApproovError,
  ApproovSessionError,
  ApproovFetchError,
  ApproovServiceError,
  ApproovCheckError,
})
for (const [name, value] of Object.entries(classes)) {
  // Said outright, because minifiers rename classes.
  Object.defineProperty(value, 'name', { value: name })
  Object.defineProperty(value.prototype, 'name', { value: name, writable: true, configurable: true })
}

/** An argument is unusable. @param {string} message */
export const invalid = (message) => new ApproovError(message, { code: 'invalid-argument' })

/** What work gives; what it throws that is not ours is about the argument that it reads. */
export function readable(work, message) {
  try {
    return work()
  } catch (cause) {
    if (cause instanceof ApproovError) throw cause
    throw new ApproovError(message, { code: 'invalid-argument', cause })
  }
}
