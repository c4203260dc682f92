// Where WebAssembly is missing or forbidden: the same code as JavaScript, in a file of its own that is loaded only there.
import { hasWebAssembly, isA, shared } from './built-ins.js'
import { ApproovError } from './errors.js'

/** How often the file could not be loaded. */
let failures = 0

/** The build that does without WebAssembly, if one is needed. @param {unknown} given the option `wasm` */
export async function withoutWasm(given) {
  // Some places run modules that they have compiled themselves, and no others.
  if (isA(given, 'WebAssembly.Module') || hasWebAssembly()) return
  try {
    const { engine } = await load()
    return engine(shared)
  } catch (cause) {
    failures += 1
    throw new ApproovError(
      "the Approov SDK must not use WebAssembly here, and approov.compat.js, which does without, could not be loaded: add 'wasm-unsafe-eval' to script-src in the content security policy, or serve approov.compat.js of the package beside the file that imports it",
      { code: 'unsupported', retryable: true, cause },
    )
  }
}

/** Browsers remember that a file could not be loaded, but not for an address with another fragment. */
function load() {
  const first = import(/** @type {any} */ ('./approov.compat.js'))
  if (!failures) return first
  return first.catch(() => import(`@compat-not-followed-by-any-bundler---${`./approov.compat.js#${failures}`}`))
}
