// The package's face: loads the WebAssembly on first use, and turns its failures into errors.
// Importing this module has no side effect.
import { builtIns, compile, compileStreaming, fetch, isA, makeInstance, missing } from './built-ins.js'
import makeGlue from './glue.js'
import source from './wasm-source.js'

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

const classes = { __proto__: null, ApproovError, ApproovSessionError, ApproovFetchError, ApproovServiceError }
for (const [name, value] of Object.entries(classes)) {
  // Said outright, because minifiers rename classes.
  Object.defineProperty(value, 'name', { value: name })
  Object.defineProperty(value.prototype, 'name', { value: name, writable: true, configurable: true })
}

/** The one object of the SDK. */
export const Approov = Object.freeze({
  async initializeSession(options) {
    for (let isFirst = true; ; isFirst = false) {
      let used
      try {
        used = instance ?? (await load(options))
        return await used.call('initializeSession', [options, configuration])
      } catch (error) {
        // Once more with a fresh instance, if this one was lost, or could not be made of a module that was loaded.
        if (!isFirst || !(used ? used.isLost() : module)) throw error
      }
    }
  },
  fetchToken(api, options) {
    return call('fetchToken', [api, options])
  },
  getDPoPToken(method, uri, nonce, token, messageSignature) {
    return call('getDPoPToken', [method, uri, nonce, token, messageSignature], proof)
  },
  messageSignature(message) {
    return call('messageSignature', [message])
  },
  getExpiries() {
    return call('getExpiries', [])
  },
})

/** The running WebAssembly: none until the first `initializeSession`, nor after one that trapped. */
let instance
/** The promise of it while it is being made. */
let loading
/** The compiled WebAssembly, kept for an instance after this one. @type {WebAssembly.Module} */
let module
/** What the last instance trapped with. */
let lastTrap
/** The options of the last session, noted by the WebAssembly: a fresh instance does not know them. */
const configuration = { __proto__: null }

/** Not `async`: every promise in between costs a proof up to three turns of the microtask queue. */
function call(name, args, finish) {
  return instance ? instance.call(name, args, finish) : callWhenLoaded(name, args, finish)
}

async function callWhenLoaded(name, args, finish) {
  await loading
  if (instance) return instance.call(name, args, finish)
  if (lastTrap) throw lost()
  throw new ApproovSessionError('there is no Approov session: call initializeSession first', {
    code: 'not-initialized',
  })
}

/** What becomes of calls whose instance was lost: the same as of any whose session has ended, so that apps begin another. */
function lost() {
  return new ApproovSessionError(
    'the Approov session was lost to an internal failure: call initializeSession() and fetch a token with fresh check results',
    { code: 'session-lost', cause: lastTrap },
  )
}

/** Makes an instance once; after a failure, the next call tries again. */
function load(options) {
  loading ??= start(options).finally(() => {
    loading = undefined
  })
  return loading
}

async function start(options) {
  if (missing.length) {
    throw new ApproovError(`the Approov SDK needs ${missing.join(' and ')}, missing here`, { code: 'unsupported' })
  }
  try {
    module ??= await compiled(ownProperty(options, 'wasm'))
    return (instance = await begin())
  } catch (cause) {
    if (cause instanceof ApproovError) throw cause
    if (module && cause === lastTrap) throw lost()
    throw new ApproovError(`the WebAssembly of the Approov SDK could not be loaded: ${cause?.message ?? cause}`, {
      code: 'load-failed',
      retryable: true,
      cause,
    })
  }
}

async function compiled(given) {
  let wasm = await (given ?? source())
  if (typeof wasm === 'string' || isA(wasm, 'URL')) wasm = await fetch(wasm)
  if (isA(wasm, 'Response')) {
    const type = wasm.headers.get('content-type') ?? ''
    const isPage = /^text\/html/i.test(type)
    if (!wasm.ok || isPage) {
      const found = isPage ? 'a page, not WebAssembly' : `status ${wasm.status}`
      const hint = given
        ? ''
        : '; if a bundler left the file out, give its URL as the option "wasm", or import approov-web-sdk/approov.js'
      throw new Error(`${wasm.url}: ${found}${hint}`)
    }
    // Compiling while it streams works with this type only, which many servers do not send.
    if (compileStreaming && /^application\/wasm$/i.test(type)) return compileStreaming(wasm)
    wasm = await wasm.arrayBuffer()
  }
  if (isA(wasm, 'WebAssembly.Module')) return wasm
  if (ArrayBuffer.isView(wasm) || isA(wasm, 'ArrayBuffer')) return compile(wasm)
  throw new ApproovError('"wasm" must be a URL, a Response, bytes or a WebAssembly.Module', {
    code: 'invalid-argument',
  })
}

const ownProperty = (object, name) => (object != null && Object.hasOwn(object, name) ? object[name] : undefined)

/**
 * A fresh instance. One that throws has trapped (a bug, no memory, no stack): what it was doing can never go on, so its calls
 * are rejected, its memory is wiped, and the next session gets another instance.
 */
async function begin() {
  const glue = makeGlue()
  const { exports, wipe } = await makeInstance(module, glue.imports())
  const pending = new Set()
  let isLost = false
  const guarded = { __proto__: null }
  for (const name in exports) {
    const value = exports[name]
    guarded[name] =
      typeof value !== 'function'
        ? value
        : (...args) => {
            if (isLost) return
            try {
              return value(...args)
            } catch (failure) {
              poison(failure)
              throw failure
            }
          }
  }

  function poison(failure) {
    isLost = true
    lastTrap = failure
    if (instance === made) instance = undefined
    for (const reject of pending) reject(failure)
    // Not before the calls on the stack, of which some may be inside the instance, have ended.
    queueMicrotask(wipe)
  }

  const made = {
    isLost: () => isLost,
    /** Never throws, but rejects. `finish` makes the promise of the call's value from what the WebAssembly returned. */
    call(name, args, finish) {
      return new Promise((resolve, reject) => {
        const fail = (failure) => {
          pending.delete(fail)
          reject(toError(failure, isLost))
        }
        const settle = (value) => {
          pending.delete(fail)
          resolve(value)
        }
        const received = finish ? (value) => finish(value).then(settle, fail) : settle
        try {
          if (isLost) throw lastTrap
          const returned = glue[name](...args)
          if (!(returned instanceof Promise)) return received(returned)
          pending.add(fail)
          returned.then(received, fail)
        } catch (failure) {
          fail(failure)
        }
      })
    },
  }
  glue.start({ exports: guarded })
  return made
}

/** The promise of a proof: `getDPoPToken` returns what is signed, and the promise of the signature. */
function proof([input, signature]) {
  return signature.then((signature) => `${input}.${base64url(signature)}`)
}

/** The 64 bytes of a signature as base64url, without the padding. */
function base64url(signature) {
  const bytes = new Uint8Array(signature)
  return (
    bytes.toBase64?.({ alphabet: 'base64url', omitPadding: true }) ??
    btoa(String.fromCharCode(...bytes))
      .slice(0, 86)
      .replaceAll('+', '-')
      .replaceAll('/', '_')
  )
}

function toError(failure, isLost) {
  const ErrorClass = classes[failure?.class]
  // A response that makes no sense has no cause but what is wrong with it.
  if (ErrorClass === ApproovFetchError) failure.errors ??= new Error(failure.message)
  if (ErrorClass) return new ErrorClass(failure.message, failure)
  if (isLost) return lost()
  return new ApproovError(`the Approov SDK failed: ${failure?.message ?? failure}`, { cause: failure })
}
