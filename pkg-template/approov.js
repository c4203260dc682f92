// The package's face: loads the WebAssembly on first use, and turns its failures into errors.
// Importing this module has no side effect.
import {
  base64url,
  compile,
  compileStreaming,
  fetch,
  hasWebCrypto,
  isA,
  listen,
  makeInstance,
  missing,
  ownProperty,
} from './built-ins.js'
import { isCheckKey, makeCreateFetch } from './create-fetch.js'
import { ApproovError, ApproovFetchError, ApproovSessionError, classes } from './errors.js'
import { makeEvents } from './events.js'
import { makeRecord } from './record.js'
import { chosen } from './builds.js'

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
    return inFreshInstance(options, (instance) =>
      instance.call('initializeSession', [options, configuration, takeRecord()]),
    )
  },
  fetchToken(api, options) {
    const fetching = call('fetchToken', [api, options])
    return configuration.altchaSiteKey ? renewing(fetching, api, options) : fetching
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
  on(type, listener, options) {
    return events.on(type, listener, options)
  },
  async endSession() {
    const removed = record.remove()
    end()
    await removed
  },
})

/** The running WebAssembly: none until the first `initializeSession`, nor after one that trapped. */
let instance
/** The promise of it while it is being made. */
let loading
/** What instances are made of, by whether it can keep keys, for one after this. @type {Map<boolean, any>} */
const modules = new Map()
/** What the last instance trapped with. */
let lastTrap
/** The options of the last session, noted by the WebAssembly: a fresh instance does not know them. */
const configuration = { __proto__: null }
/** How often the session was ended: what began before must not go on after. */
let ends = 0
/** Only the first start takes over a session that another page has kept. */
let hasStarted = false
/** What was kept, for the call that starts. */
let kept
/** Whether another page has kept another session since. */
let isOutdated = false

const events = makeEvents((isCertain) => instance?.timeLeft(isCertain))

const record = makeRecord(
  (what) => {
    if (what === 'end') {
      record.forget()
      end()
    } else {
      isOutdated = true
      // What has happened to the session meanwhile is not known.
      if (what === 'shown') void adoptOnce()
    }
  },
  (message) => events.emit('log', { message }),
)

listen((kind, value) => {
  if (kind === 'session' || kind === 'moved') events.begin(value, kind === 'session')
  else if (kind === 'sessionend') events.end(value)
  else if (kind === 'tokenrefresh') events.emit(kind, { api: value })
  else if (kind === 'error') events.emit(kind, { error: toError(value) })
  else if (kind === 'log') events.emit(kind, { message: value })
  else void record.write(value, kind === 'record')
})

const createFetch = makeCreateFetch({
  call,
  configuration,
  emit: events.emit,
  refuse: (token) => instance?.refuse(token) ?? true,
  renew: (session, api, check, mayContinue) =>
    inFreshInstance(session, (instance) => {
      const record = takeRecord()
      return instance.call('renew', [session, configuration, api, check, mayContinue ? record : undefined])
    }),
})

/** A token of the next session in place of one of a session that has ended, where the SDK passes the only check by itself. */
async function renewing(fetching, api, options) {
  const before = ends
  try {
    return await fetching
  } catch (error) {
    const isOver = error.code === 'session-expired' || error.code === 'session-lost'
    const checks = Object.keys(configuration).filter((name) => isCheckKey(name) && configuration[name] != null)
    if (!isOver || ends !== before || checks.length !== 1) throw error
    await createFetch.renewSession({ __proto__: null }, api, 'expired', ownProperty(options, 'payload'))
    return call('fetchToken', [api, options])
  }
}

/** Ends the session in this page, if there is one. */
function end() {
  ends += 1
  const error = ended()
  createFetch.end(error)
  for (const name of Object.keys(configuration)) delete configuration[name]
  lastTrap = kept = undefined
  isOutdated = hasStarted = false
  if (instance) instance.stop(error, 'ended')
}

const ended = () =>
  new ApproovSessionError('the Approov session was ended by endSession()', { code: 'session-expired' })

/** The record for the call that starts; no other gets it. */
function takeRecord() {
  const taken = kept
  kept = undefined
  return taken
}

/** The value of an option, or what the last session had. What cannot be read is for the WebAssembly to say. */
function option(options, name) {
  try {
    return ownProperty(options, name) ?? configuration[name]
  } catch {
    return configuration[name]
  }
}

/** What begins a session: it loads the WebAssembly where there is none, and tries once more with a fresh instance. */
async function inFreshInstance(options, work) {
  const before = ends
  const storage = option(options, 'keyStorage')
  let needsWhole = storage === 'wasm' || (storage !== 'webcrypto' && !hasWebCrypto)
  for (let isFirst = true; ; isFirst = false) {
    const last = instance
    let used
    try {
      used = last && (!needsWhole || last.hasWasmKeys) ? last : await load(options, needsWhole)
      if (ends !== before) throw ended()
      const value = await work(used)
      if (last && last !== used) events.end('replaced')
      return value
    } catch (error) {
      // The session before stays.
      if (last && !last.isLost() && instance === used) instance = last
      if (ends !== before || !isFirst) throw error
      // Where WebCrypto cannot make the key, the other build can.
      if (error.code === 'unsupported' && storage !== 'webcrypto' && used && !used.hasWasmKeys) needsWhole = true
      // Once more with a fresh instance, if this one was lost, or could not be made of a module that was loaded.
      else if (!(used ? used.isLost() : modules.size)) throw error
    }
  }
}

/** Not `async`: every promise in between costs a proof up to three turns of the microtask queue. */
function call(name, args, finish) {
  return instance && !isOutdated ? instance.call(name, args, finish) : callWhenReady(name, args, finish)
}

async function callWhenReady(name, args, finish) {
  const before = ends
  if (isOutdated) await adoptOnce()
  await loading
  if (ends !== before) throw ended()
  if (instance) return instance.call(name, args, finish)
  if (lastTrap) throw lost()
  throw new ApproovSessionError('there is no Approov session: call initializeSession first', {
    code: 'not-initialized',
  })
}

/** The promise that a session of another page is taken over, while it is. */
let outdated

const adoptOnce = () => (outdated ??= adopt().finally(() => (outdated = undefined)))

async function adopt() {
  isOutdated = false
  const before = ends
  const newer = await record.read()
  if (ends !== before) return
  if (newer) instance?.adopt(newer)
  else if (newer === null) {
    // Another page has ended it while this one was in the back/forward cache.
    record.forget()
    end()
  }
}

/** What becomes of calls whose instance was lost: the same as of any whose session has ended, so that apps begin another. */
function lost() {
  return new ApproovSessionError(
    'the Approov session was lost to an internal failure: call initializeSession() and fetch a token with fresh check results',
    { code: 'session-lost', cause: lastTrap },
  )
}

/** Makes an instance once; after a failure, the next call tries again. */
function load(options, needsWhole) {
  if (loading && needsWhole && !loading.isWhole) {
    const next = () => load(options, needsWhole)
    return loading.then(next, next)
  }
  if (!loading) {
    loading = start(options, needsWhole).finally(() => {
      loading = undefined
    })
    loading.isWhole = needsWhole
  }
  return loading
}

async function start(options, needsWhole) {
  if (missing.length) {
    throw new ApproovError(`the Approov SDK needs ${missing.join(' and ')}, missing here`, { code: 'unsupported' })
  }
  const before = ends
  const reading = hasStarted ? undefined : readRecord(options)
  let module
  try {
    const given = await option(options, 'wasm')
    const build = await chosen(given, needsWhole)
    module = modules.get(build.hasWasmKeys)
    module ??= build.makeInstance ? build : await compiled(build.source, given)
    modules.set(build.hasWasmKeys, module)
    const made = await begin(build, module)
    const found = await reading
    if (ends !== before) throw ended()
    if (!hasStarted) kept = found
    hasStarted = true
    return (instance = made)
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

/** What an earlier page has kept, if this one asks for it. */
function readRecord(options) {
  const siteKey = option(options, 'approovSiteKey')
  if (option(options, 'persistence') === 'browser' && typeof siteKey === 'string') return record.read(siteKey)
}

async function compiled(source, given) {
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

/**
 * A fresh instance. One that throws has trapped (a bug, no memory, no stack): what it was doing can never go on, so its calls
 * are rejected, its memory is wiped, and the next session gets another instance.
 */
async function begin(build, module) {
  const { hasWasmKeys } = build
  const glue = build.makeGlue()
  const begun = () => glue.start({ exports: guarded })
  const { exports, wipe } = await (build.makeInstance ?? makeInstance)(module, glue.imports(), begun)
  const pending = new Set()
  let isLost = false
  let isStopped = false
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
    lastTrap = failure
    isLost = true
    stop(failure, 'session-lost')
  }

  function stop(failure, code) {
    isLost = true
    if (instance === made) instance = undefined
    if (isStopped) return
    // Not before the calls on the stack, of which some may be inside the instance, have ended; and there may be no stack left.
    queueMicrotask(() => {
      wipe()
      events.end(code)
      for (const reject of pending) reject(failure)
    })
    isStopped = true
  }

  const made = {
    hasWasmKeys,
    isLost: () => isLost,
    stop,
    refuse: (token) => isLost || glue.refuse(token),
    adopt: (newer) => isLost || glue.adopt(newer),
    timeLeft: (isCertain) => (isLost ? undefined : glue.timeLeft(isCertain)),
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
          // What has trapped for want of stack could not be stopped there.
          if (isLost) stop(lastTrap, 'session-lost')
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
  // Why the session was ended.
  if (failure instanceof ApproovError) return failure
  const ErrorClass = classes[failure?.class]
  // A response that makes no sense has no cause but what is wrong with it.
  if (ErrorClass === ApproovFetchError) failure.errors ??= new Error(failure.message)
  if (ErrorClass) return new ErrorClass(failure.message, failure)
  if (isLost) return lost()
  return new ApproovError(`the Approov SDK failed: ${failure?.message ?? failure}`, { cause: failure })
}
