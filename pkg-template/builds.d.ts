/** The code that keeps the session, in one of its forms. */
export interface Build {
  /** The bindings of one instance. */
  makeGlue: typeof import('./glue.js').default
  /** Where its WebAssembly is, or its bytes. */
  source?: typeof import('./wasm-source.js').default
  /** Of a build that is not WebAssembly: the exports of a new instance. `refresh` has to be called when the memory's buffer is another. */
  makeInstance?(module: unknown, imports: WebAssembly.Imports, refresh: () => void): { exports: any; wipe(): void }
}
/** The build that is in the same file. */
export const own: Build
/** The build to use where the option `wasm` is this. The packager writes this module for each file (`xtask/src/package/mod.rs`). */
export function chosen(given: unknown): Promise<Build>
