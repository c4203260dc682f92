// The package's face: loads the WebAssembly on first use, and turns its failures into errors.
// Importing this module has no side effect.
import makeGlue from './glue.js'
import source from './wasm-source.js'

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  /** @param {string} message @param {any} [details] `cause` and `errors` only where there are some */
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
    if (!instance) await load(options)
    await instance.call('initializeSession', [options, configuration])
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
const configuration = {}

/** Not `async`: every promise in between costs a proof up to three turns of the microtask queue. */
function call(name, args, finish) {
  return instance ? instance.call(name, args, finish) : callWhenLoaded(name, args, finish)
}

async function callWhenLoaded(name, args, finish) {
  await loading
  if (!instance) {
    const lost = lastTrap && ': the last one was lost to an internal failure'
    throw new ApproovSessionError(`there is no session${lost ?? ''}; call Approov.initializeSession first`, {
      code: 'not-initialized',
      cause: lastTrap,
    })
  }
  return instance.call(name, args, finish)
}

/** Makes an instance once; after a failure, the next call tries again. */
function load(options) {
  loading ??= start(options).finally(() => {
    loading = undefined
  })
  return loading
}

async function start(options) {
  const missing = ['WebAssembly', 'fetch', 'crypto'].filter((name) => !globalThis[name])
  if (missing.length) {
    throw new ApproovError(`the Approov SDK needs ${missing.join(' and ')}, missing here`, { code: 'unsupported' })
  }
  try {
    module ??= await compile(await (options?.wasm ?? source()))
    instance = await instantiate()
  } catch (cause) {
    if (cause instanceof ApproovError) throw cause
    throw new ApproovError(`the WebAssembly of the Approov SDK could not be loaded: ${cause?.message ?? cause}`, {
      code: 'load-failed',
      retryable: true,
      cause,
    })
  }
}

async function compile(wasm) {
  if (typeof wasm === 'string' || isA(wasm, 'URL')) wasm = await fetch(wasm)
  if (isA(wasm, 'Response')) {
    const type = wasm.headers.get('content-type') ?? ''
    if (!wasm.ok) throw new Error(`${wasm.url}: status ${wasm.status}`)
    if (/^text\/html/i.test(type)) throw new Error(`${wasm.url} is a page, not WebAssembly`)
    // Compiling while it streams works with this type only, which many servers do not send.
    if (WebAssembly.compileStreaming && /^application\/wasm$/i.test(type)) return WebAssembly.compileStreaming(wasm)
    wasm = await wasm.arrayBuffer()
  }
  if (isA(wasm, 'WebAssembly.Module')) return wasm
  if (ArrayBuffer.isView(wasm) || isA(wasm, 'ArrayBuffer')) return WebAssembly.compile(wasm)
  throw new ApproovError('"wasm" must be a URL, a Response, bytes or a WebAssembly.Module', {
    code: 'invalid-argument',
  })
}

/** Whether a value is of a built-in class, of whichever realm. */
function isA(value, name) {
  return Object.prototype.toString.call(value) === `[object ${name}]`
}

/**
 * A fresh instance. One that throws has trapped (a bug, no memory, no stack): what it was doing can never go on, so its calls
 * are rejected, its memory is wiped, and the next session gets another instance.
 */
async function instantiate() {
  const glue = makeGlue()
  const { exports } = await WebAssembly.instantiate(module, glue.imports())
  const pending = new Set()
  let dead = false
  const guarded = {}
  for (const [name, value] of Object.entries(exports)) {
    guarded[name] =
      typeof value !== 'function'
        ? value
        : (...args) => {
            if (dead) return
            try {
              return value(...args)
            } catch (failure) {
              poison(failure)
              throw failure
            }
          }
  }

  function poison(failure) {
    dead = true
    lastTrap = failure
    if (instance === made) instance = undefined
    for (const reject of pending) reject(failure)
    // Not before the calls on the stack, of which some may be inside the instance, have ended.
    const memory = /** @type {any} */ (Object.values(exports).find((value) => isA(value, 'WebAssembly.Memory')))
    queueMicrotask(() => new Uint8Array(memory.buffer).fill(0))
  }

  const made = {
    /** Never throws, but rejects. `finish` makes the promise of the call's value from what the WebAssembly returned. */
    call(name, args, finish) {
      return new Promise((resolve, reject) => {
        const fail = (failure) => {
          pending.delete(fail)
          reject(toError(failure))
        }
        const settle = (value) => {
          pending.delete(fail)
          resolve(value)
        }
        const received = finish ? (value) => finish(value).then(settle, fail) : settle
        try {
          if (dead) throw lastTrap
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

function toError(failure) {
  const ErrorClass = classes[failure?.class]
  // A response that makes no sense has no cause but what is wrong with it.
  if (ErrorClass === ApproovFetchError) failure.errors ??= new Error(failure.message)
  if (ErrorClass) return new ErrorClass(failure.message, failure)
  return new ApproovError(`the Approov SDK failed: ${failure?.message ?? failure}`, { cause: failure })
}
