// The crate as WebAssembly, embedded as text: nothing that a bundler or a container could leave behind.
import { Engine, initSync, isSameUrl } from './glue.js'
import { WASM } from './wasm.js'

initSync({ module: Uint8Array.from(atob(WASM), (character) => character.charCodeAt(0)) })

export { Engine, isSameUrl }
