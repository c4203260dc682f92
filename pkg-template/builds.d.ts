/**
 * A build of the WebAssembly: the bindings of one instance, and where its module is. The packager writes this file
 * (`xtask/src/package/glue.rs`) of what wasm-bindgen generates.
 */
interface Build {
  /** Makes the bindings of one instance: its imports, how it is started, and its functions by name. */
  makeGlue(): {
    imports(): WebAssembly.Imports
    start(instance: { exports: WebAssembly.Exports }): void
    [name: string]: (...args: any[]) => any
  }
  /** Where the module is, its bytes, or itself. */
  source(): Promise<URL | Uint8Array | WebAssembly.Module>
  /** Whether it can keep keys in its memory. */
  hasWasmKeys: boolean
}

/** The build that comes with this entry. */
export const own: Build
/** The one that has everything. */
export function whole(): Promise<Build>
