// The package's face: loads the WebAssembly on first use, and turns its failures into errors.
// Importing this module has no side effect.
import * as glue from './glue.js'
import source from './wasm-source.js'

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  constructor(message, { code = 'internal', retryable = false, cause, errors } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.retryable = retryable
    if (errors !== undefined) this.errors = errors
  }
}

/** There is no session, or it has ended: initialise one and pass fresh check results. */
export class ApproovSessionError extends ApproovError {}

/** Communication with the Approov service failed; `errors` is the cause. */
export class ApproovFetchError extends ApproovError {}

/** The Approov service reported errors; `errors` maps their codes to details. */
export class ApproovServiceError extends ApproovError {}

const classes = { ApproovError, ApproovSessionError, ApproovFetchError, ApproovServiceError }
for (const [name, value] of Object.entries(classes)) {
  // Said outright, because minifiers rename classes.
  Object.defineProperty(value, 'name', { value: name })
  Object.defineProperty(value.prototype, 'name', { value: name, writable: true, configurable: true })
}

/** The one object of the SDK. */
export const Approov = Object.freeze({
  async initializeSession(options) {
    return call('initializeSession', [options])
  },
  async fetchToken(api, options) {
    return call('fetchToken', [api, options])
  },
  async getDPoPToken(method, uri, nonce, token, messageSignature) {
    return call('getDPoPToken', [method, uri, nonce, token, messageSignature])
  },
  async messageSignature(message) {
    return call('messageSignature', [message])
  },
  async getExpiries() {
    return call('getExpiries', [])
  },
})

let loaded = false
let loading

async function call(name, args) {
  if (!loaded) await load()
  try {
    return await glue[name](...args)
  } catch (failure) {
    throw toError(failure)
  }
}

/** Loads the WebAssembly once; a load that failed is tried again by the next call. */
function load() {
  loading ??= instantiate().then(
    () => { loaded = true },
    cause => {
      loading = undefined
      throw new ApproovError(`the WebAssembly of the Approov SDK could not be loaded: ${cause?.message ?? cause}`, {
        code: 'load-failed',
        retryable: true,
        cause,
      })
    },
  )
  return loading
}

async function instantiate() {
  if (typeof WebAssembly !== 'object') throw new Error('this browser has no WebAssembly')
  await glue.default({ module_or_path: await source() })
}

function toError(failure) {
  const ErrorClass = classes[failure?.class]
  if (ErrorClass) return new ErrorClass(failure.message, failure)
  return new ApproovError(`the Approov SDK failed: ${failure?.message ?? failure}`, { cause: failure })
}
