// The package's face: loads the WebAssembly on first use, and turns its failures into errors.
// Importing this module has no side effect.
import { base64url, compile, compileStreaming, fetch, isA, makeInstance, missing, ownProperty } from './built-ins.js'
import { chosen, own } from './builds.js'
import { makeCreateFetch } from './create-fetch.js'
import { ApproovError, ApproovFetchError, ApproovSessionError, classes } from './errors.js'

export {
  ApproovCheckError,
  ApproovError,
  ApproovFetchError,
  ApproovServiceError,
  ApproovSessionError,
} from './errors.js'

/** The one object of the SDK. */
export const Approov = Object.freeze({
  initializeSession(options) {
    return inFreshInstance(options, (instance) => instance.call('initializeSession', [options, configuration]))
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
  createFetch(options) {
    return createFetch(options)
  },
})

/** The running WebAssembly: none until the first `initializeSession`, nor after one that trapped. */
let instance
/** The promise of it while it is being made. */
let loading
/** The build in use, and its compiled WebAssembly, kept for an instance after this one. */
let build
/** @type {any} */
let module
/** What the last instance trapped with. */
let lastTrap
/** The options of the last session, noted by the WebAssembly: a fresh instance does not know them. */
const configuration = { __proto__: null }

const createFetch = makeCreateFetch({
  call,
  configuration,
  refuse: (token) => instance?.refuse(token) ?? true,
  renew: (session, api, check) =>
    inFreshInstance(session, (instance) => instance.call('renew', [session, configuration, api, check])),
})

/** What begins a session: it loads the WebAssembly where there is none, and tries once more with a fresh instance. */
async function inFreshInstance(options, work) {
  for (let isFirst = true; ; isFirst = false) {
    let used
    try {
      used = instance ?? (await load(options))
      return await work(used)
    } catch (error) {
      // Once more with a fresh instance, if this one was lost, or could not be made of a module that was loaded.
      if (!isFirst || !(used ? used.isLost() : module)) throw error
    }
  }
}

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
    if (!module) {
      const given = await ownProperty(options, 'wasm')
      build = await chosen(given)
      module = build.makeInstance ? build : await compiled(given)
    }
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
  let wasm = await (given ?? own.source())
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

/**
 * A fresh instance. One that throws has trapped (a bug, no memory, no stack): what it was doing can never go on, so its calls
 * are rejected, its memory is wiped, and the next session gets another instance.
 */
async function begin() {
  const glue = build.makeGlue()
  const begun = () => glue.start({ exports: guarded })
  const { exports, wipe } = await (build.makeInstance ?? makeInstance)(module, glue.imports(), begun)
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
    refuse: (token) => isLost || glue.refuse(token),
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
  begun()
  return made
}

/** The promise of a proof: `getDPoPToken` returns what is signed, and the promise of the signature. */
function proof([input, signature]) {
  return signature.then((signature) => `${input}.${base64url(signature)}`)
}

function toError(failure, isLost) {
  const ErrorClass = classes[failure?.class]
  // A response that makes no sense has no cause but what is wrong with it.
  if (ErrorClass === ApproovFetchError) failure.errors ??= new Error(failure.message)
  if (ErrorClass) return new ErrorClass(failure.message, failure)
  if (isLost) return lost()
  return new ApproovError(`the Approov SDK failed: ${failure?.message ?? failure}`, { cause: failure })
}
