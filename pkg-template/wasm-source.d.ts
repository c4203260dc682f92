/** Where the WebAssembly is, or its bytes: the packager writes one or the other (`xtask/src/package/mod.rs`). */
export default function wasmSource(): Promise<URL | Uint8Array>
