/**
 * The bindings of one instance of the WebAssembly: how its imports are made, how it is started, and its functions by name. The
 * packager makes them of what wasm-bindgen generates (`xtask/src/package/glue.rs`).
 */
export default function makeGlue(): {
  imports(): WebAssembly.Imports
  start(instance: { exports: WebAssembly.Exports }): void
  [name: string]: (...args: any[]) => any
}
