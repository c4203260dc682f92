// What wasm-bindgen makes of ../src/lib.rs, for the type check of ../js; not part of the package.

/** A check in progress: what its host has to do next. */
export class Check {
  private constructor()
  readonly step: 'done' | 'body' | 'keys' | 'command'
  /** The verdict, or the URL of the keys. */
  readonly text: string
  readonly command: Uint8Array[]
  free(): void
}

/** A verifier, with its options as JSON. Throws what is wrong with them. */
export class Engine {
  constructor(options: string)
  start(request: string, now: number, keysFetched: boolean): Check
  body(check: Check, body: Uint8Array): void
  reply(check: Check, response: number | undefined, failure: string | undefined): void
  /** What was wrong with the keys. */
  keys(keys: string | undefined, failure: string | undefined, now: number): string | undefined
  refusal(check: Check, status: number, code: string, detail: string): string
}

export function isSameUrl(htu: string, url: string, target?: string): boolean | undefined

export function initSync(init: { module: Uint8Array | WebAssembly.Module }): unknown
