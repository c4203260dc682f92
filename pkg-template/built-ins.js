// The built-ins that secrets pass through, as they are when the package is evaluated: what a script does to the page's own after
// that changes nothing here. SECURITY.md says which script this holds against, and which not.
//
// No method is looked up on a value or prototype that the page can reach: an `uncurried` function takes what would be `this` as its
// first argument. Objects that the browser reads have no prototype.

const { freeze, getPrototypeOf, hasOwn, prototype } = Object
const { defineProperty, getOwnPropertyDescriptor, ownKeys } = Reflect
const { call } = Function.prototype
const { crypto, CryptoKey, WebAssembly } = globalThis
const { Instance, Memory, Module, Table } = WebAssembly ?? {}

const uncurried = (method) => method && call.bind(method)
// Also of a class that a page's script has put in place of the built-in one before, as monitoring scripts do.
const getter = (Class, name) => {
  for (let from = Class?.prototype; from; from = getPrototypeOf(from)) {
    const get = getOwnPropertyDescriptor(from, name)?.get
    if (get) return uncurried(get)
  }
}
const bound = (object, name) => object?.[name]?.bind(object)
/** The same members, without a prototype that the page could have changed. @param {object} members @returns {any} */
const own = (members) => ({ __proto__: null, ...members })
const set = (object, name, value) =>
  defineProperty(object, name, own({ value, writable: true, enumerable: true, configurable: true }))

const tagOf = uncurried(prototype.toString)
const promiseThen = uncurried(Promise.prototype.then)
const promiseResolve = bound(Promise, 'resolve')
const copyBytes = uncurried(getPrototypeOf(Uint8Array.prototype).set)
const bufferLength = getter(ArrayBuffer, 'byteLength')
const viewedBuffer = getter(DataView, 'buffer')

const generateKey = bound(crypto?.subtle, 'generateKey')
const exportKey = bound(crypto?.subtle, 'exportKey')
const sign = bound(crypto?.subtle, 'sign')
const importKey = bound(crypto?.subtle, 'importKey')
const deriveBits = bound(crypto?.subtle, 'deriveBits')
export const hasWebCrypto = Boolean(generateKey)
export const digest = (bytes) => digestBytes('SHA-256', bytes)
const digestBytes = bound(crypto?.subtle, 'digest')
const isExtractable = getter(CryptoKey, 'extractable')
const exportsOf = getter(Instance, 'exports')
const bufferOf = getter(Memory, 'buffer')
const tableGet = uncurried(Table?.prototype?.get)
const tableSet = uncurried(Table?.prototype?.set)

export const fetch = bound(globalThis, 'fetch')
export const { compile, compileStreaming, instantiate } = WebAssembly ?? {}

/** The names of what the page lacks. */
export const missing = [
  ['fetch', fetch],
  ['crypto', crypto],
]
  .filter(([, builtIn]) => !builtIn)
  .map(([name]) => name)

/** The smallest module there is. */
const EMPTY_MODULE = [0, 97, 115, 109, 1, 0, 0, 0]

/**
 * Whether WebAssembly is there, and the page's content security policy allows it. Chromium and Firefox refuse to compile where it
 * does not, WebKit to make an instance; `validate` says yes everywhere.
 */
export function hasWebAssembly() {
  try {
    new Instance(new Module(new Uint8Array(EMPTY_MODULE)))
    return true
  } catch {
    return false
  }
}

/** Whether a value is of a built-in class, of whichever realm. */
export const isA = (value, name) => tagOf(value) === `[object ${name}]`

/** The value of an object's own property. */
export const ownProperty = (object, name) => (object != null && hasOwn(object, name) ? object[name] : undefined)

/** Bytes as base64url, without the padding. */
export function base64url(buffer) {
  const bytes = new Uint8Array(buffer)
  return (
    bytes.toBase64?.({ alphabet: 'base64url', omitPadding: true }) ??
    btoa(String.fromCharCode(...bytes))
      .replace(/=+$/, '')
      .replaceAll('+', '-')
      .replaceAll('/', '_')
  )
}

/** Who hears of what happens in the WebAssembly: the facade. */
let listener = (_kind, _value) => {}
export const listen = (hears) => {
  listener = hears
}

/** What the WebAssembly calls: `builtIns.name(…)` in the glue. */
export const builtIns = freeze({
  __proto__: null,
  fetch,
  notify: (kind, value) => listener(kind, value),
  generateKey: () => generateKey({ __proto__: null, name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
  isExtractable: (key) => (isExtractable ? isExtractable(key) : key.extractable),
  exportKey: (key) => exportKey('raw', key),
  sign: (key, message) => sign({ __proto__: null, name: 'ECDSA', hash: 'SHA-256' }, key, message),
  /** The keys of counters from `first` on (ALTCHA, protocol v2), one after the other in one array. */
  async deriveKeys(nonce, salt, iterations, first, count) {
    const keys = new OwnBytes(32 * count)
    const derivation = { __proto__: null, name: 'PBKDF2', hash: 'SHA-256', salt, iterations }
    const derive = async (index) => {
      const password = new OwnBytes(nonce.length + 4)
      copyBytes(password, nonce)
      const counter = first + index
      for (let place = 0; place < 4; place++) password[nonce.length + place] = counter >>> (24 - 8 * place)
      const key = await importKey('raw', password, 'PBKDF2', false, ['deriveBits'])
      copyBytes(keys, new OwnBytes(await deriveBits(derivation, key, 256)), 32 * index)
    }
    const all = []
    for (let index = 0; index < count; index++) all[index] = derive(index)
    for (let index = 0; index < count; index++) await all[index]
    return keys
  },
  getRandomValues: bound(crypto, 'getRandomValues'),
  /** Calls back when a promise is settled, or with what is not a promise. */
  settle(promise, callback) {
    const fulfilled = (value) => callback(true, value)
    const rejected = (reason) => callback(false, reason)
    try {
      promiseThen(promise, fulfilled, rejected)
    } catch {
      promiseThen(promiseResolve(promise), fulfilled, rejected)
    }
  },
  /** Calls a method that takes options, or nothing. WebKit reads options that were not given from Object.prototype. */
  call: (object, name) => object[name]({ __proto__: null }),
  set,
  /** An object to be read by the browser. */
  record: () => ({ __proto__: null }),
  copy: (target, source) => copyBytes(target, source),
})

/** A class like a built-in one, with the methods of now. */
function ownClass(BuiltIn) {
  if (!BuiltIn) return
  const Own = class extends BuiltIn {}
  for (let from = BuiltIn.prototype; from && from !== prototype; from = getPrototypeOf(from)) {
    for (const name of ownKeys(from)) {
      if (hasOwn(Own.prototype, name)) continue
      defineProperty(Own.prototype, name, own(getOwnPropertyDescriptor(from, name)))
    }
  }
  // Not frozen: engines are slow with typed arrays that have a frozen prototype, and the page never gets one of these.
  set(Own, Symbol.species, Own)
  return Own
}

/** An object like a built-in one, with the functions of now. */
function copyOf(builtIn) {
  const copy = { __proto__: null }
  for (const name of ownKeys(builtIn)) copy[name] = builtIn[name]
  return copy
}

// What the glue sees in place of the globals.
/** @type {any} */
const OwnBytes = ownClass(Uint8Array)
const OwnView = ownClass(DataView)
const OwnDecoder = ownClass(globalThis.TextDecoder)
const OwnEncoder = ownClass(globalThis.TextEncoder)
const OwnRegistry = ownClass(globalThis.FinalizationRegistry)
const ownJson = copyOf(JSON)
const ownReflect = copyOf(Reflect)
export {
  OwnBytes as Uint8Array,
  OwnView as DataView,
  OwnDecoder as TextDecoder,
  OwnEncoder as TextEncoder,
  OwnRegistry as FinalizationRegistry,
  ownJson as JSON,
  ownReflect as Reflect,
}

/** What an engine of another file uses (`compat.js`), which is evaluated later than this one. */
export const shared = own({
  builtIns,
  DataView: OwnView,
  FinalizationRegistry: OwnRegistry,
  JSON: ownJson,
  Reflect: ownReflect,
  TextDecoder: OwnDecoder,
  TextEncoder: OwnEncoder,
  Uint8Array: OwnBytes,
  Array: ownClass(Array),
  ArrayBuffer: ownClass(ArrayBuffer),
  Int8Array: ownClass(Int8Array),
  Int16Array,
  Int32Array,
  Uint16Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  Math: copyOf(Math),
  queueMicrotask: bound(globalThis, 'queueMicrotask'),
})

// Of the buffer of a view, which is the whole memory, the glue reads only whether it is detached.
const buffer = {
  get() {
    return { __proto__: null, detached: !bufferLength(viewedBuffer(this)) }
  },
}
defineProperty(OwnView.prototype, 'buffer', own(buffer))

/** The exports of a new instance of a module, and `wipe`, which clears its memory. Memory and table come with the methods of now. */
export async function makeInstance(module, imports) {
  let instance
  try {
    instance = new Instance(module, imports)
  } catch (error) {
    // Older Chromium refuses to do this at once on the main thread. A promise is the second choice, because what a page puts in
    // place of `then` takes part in settling it.
    if (!(error instanceof RangeError)) throw error
    instance = await instantiate(module, imports)
  }
  const made = { __proto__: null, exports: { __proto__: null } }
  const exports = exportsOf(instance)
  for (const name of ownKeys(exports)) {
    const value = exports[name]
    made.exports[name] = value
    if (isA(value, 'WebAssembly.Memory')) {
      const memory = {
        __proto__: null,
        get buffer() {
          return bufferOf(value)
        },
      }
      made.exports[name] = memory
      made.wipe = () => new /** @type {any} */ (OwnBytes)(memory.buffer).fill(0)
    } else if (isA(value, 'WebAssembly.Table')) {
      made.exports[name] = {
        __proto__: null,
        get: (index) => tableGet(value, index),
        set: (index, item) => tableSet(value, index, item),
      }
    }
  }
  return made
}
