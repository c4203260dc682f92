// The errors of the SDK.
import { builtIns } from './built-ins.js'

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  /** @param {string} message @param {any} [properties] `cause` and `errors` only where there are some */
  constructor(message, properties) {
    // What the page adds to Object.prototype is none of these.
    const {
      code = 'internal',
      retryable = false,
      cause,
      errors,
    } = /** @type {any} */ ({ __proto__: null, ...properties })
    super(message, cause === undefined ? undefined : { cause })
    builtIns.set(this, 'code', code)
    builtIns.set(this, 'retryable', retryable)
    if (errors !== undefined) builtIns.set(this, 'errors', errors)
  }
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
export const classes = {
  __proto__: null,
  ApproovError,
  ApproovSessionError,
  ApproovFetchError,
  ApproovServiceError,
  ApproovCheckError,
}
for (const [name, value] of Object.entries(classes)) {
  // Said outright, because minifiers rename classes.
  Object.defineProperty(value, 'name', { value: name })
  Object.defineProperty(value.prototype, 'name', { value: name, writable: true, configurable: true })
}

/** An argument is unusable. @param {string} message */
export const invalid = (message) => new ApproovError(message, { code: 'invalid-argument' })
