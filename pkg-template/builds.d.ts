/** The code that keeps the session, in one of its forms. The packager writes this file (`xtask/src/package/`) of what wasm-bindgen makes. */
export interface Build {
  /** The bindings of one instance: its imports, how it is started, and its functions by name. */
  makeGlue(): {
    imports(): WebAssembly.Imports
    start(instance: { exports: WebAssembly.Exports }): void
    [name: string]: (...args: any[]) => any
  }
  /** Where its WebAssembly is, its bytes, or the module itself. */
  source?(): Promise<URL | Uint8Array | WebAssembly.Module>
  /** Whether it can keep keys in its memory. */
  hasWasmKeys?: boolean
  /** Of a build that is not WebAssembly: the exports of a new instance. `refresh` has to be called when the memory's buffer is another. */
  makeInstance?(module: unknown, imports: WebAssembly.Imports, refresh: () => void): { exports: any; wipe(): void }
}

/** The build that is in the same file. */
export const own: Build
/** The build to use where the option `wasm` is this, and keys are wanted in the memory of the WebAssembly or not. */
export function chosen(given: unknown, needsWhole: boolean): Promise<Build>
