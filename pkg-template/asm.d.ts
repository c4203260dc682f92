/** The functions of a fresh instance of what wasm2js has made, which uses these built-ins (`xtask/src/package/compat.rs`). */
export default function makeAsm(builtIns: any): (imports: WebAssembly.Imports) => Record<string, any>
