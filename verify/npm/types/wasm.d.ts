// The WebAssembly as base64, which the build writes; not part of the package.
export const WASM: string
