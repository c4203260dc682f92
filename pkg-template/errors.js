// The errors of the SDK: a file of its own in the package, which all entries import, so that their classes are the same.

const { defineProperty } = Reflect
const { freeze } = Object

/** As an own property, whatever the page has put on prototypes. */
const set = (object, name, value) =>
  defineProperty(object, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true })

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  /** @param {string} message @param {any} [properties] `cause`, `errors` and `check` only where there are some */
  constructor(message, properties) {
    // What the page adds to Object.prototype is none of these.
    const {
      code = 'internal',
      retryable = false,
      cause,
      errors,
      check,
    } = /** @type {any} */ ({ __proto__: null, ...properties })
    super(message, cause === undefined ? undefined : { cause })
    set(this, 'code', code)
    set(this, 'retryable', retryable)
    if (errors !== undefined) set(this, 'errors', errors)
    if (check !== undefined) set(this, 'check', check)
  }
}

/** There is no session, or it has ended: initialise one and pass fresh check results. */
export class ApproovSessionError extends ApproovError {}

/** Communication with the Approov service failed; `errors` is the cause. */
export class ApproovFetchError extends ApproovError {}

/** The Approov service reported errors; `errors` maps their codes to details. */
export class ApproovServiceError extends ApproovError {}

/** A check could not be passed; `check` is its name. */
export class ApproovCheckError extends ApproovError {}

/** By name. */
export const classes = freeze({
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
