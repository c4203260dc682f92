/**
 * The Approov web protection SDK without the key store in WebAssembly memory: less than half to download. Where the browser
 * offers no WebCrypto (pages on plain http), `initializeSession` rejects with `unsupported`, and so it does for
 * `keyStorage: 'wasm'`. All else is as in the main entry. Import one of the two: each has a session of its own.
 */
export * from './approov.js'
