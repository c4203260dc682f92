// The crate as WebAssembly where code may only come from modules: Cloudflare Workers.
import module from './approov_verify_bg.wasm'
import { Engine, initSync, isSameUrl } from './glue.js'

initSync({ module })

export { Engine, isSameUrl }
