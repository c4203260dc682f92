/**
 * Approov web protection SDK.
 *
 * Every function returns a promise and every failure is a rejection with an {@link ApproovError} or one of its subclasses.
 */

/** The functions of the SDK. There is one session at a time, held in memory only. */
export const Approov: Readonly<{
  /**
   * Begins a session with a fresh key pair; the state of the session before, if any, is dropped.
   *
   * Called with nothing or with `{}`, it takes the configuration of the session before. It resolves as soon as the key is made; the
   * connection to the service is opened meanwhile.
   *
   * The first call loads the WebAssembly; a load that failed is tried again by the next call. If the WebAssembly stops (a bug, no
   * memory), this function tries once more by itself with a fresh instance.
   *
   * Options are own properties of the object: what its prototypes have does not count.
   *
   * @throws {ApproovError} `invalid-argument`, naming each option that is missing or unusable; `unsupported` where there is no
   *   WebAssembly, no `fetch` or no `crypto`, or where no key can be made; `load-failed` if the WebAssembly did not load.
   * @throws {ApproovSessionError} `session-lost` if the fresh instance stopped, too.
   */
  initializeSession(options?: SessionOptions | EmptyOptions): Promise<void>

  /**
   * Resolves to an Approov token for an API: from the cache, or from the service.
   *
   * The first call of a session needs the result of at least one check. Later calls may repeat or omit it; a result that differs
   * from the one before is verified again. A request that carries a result runs on when its callers have given up, and the next call
   * with the same result gets its token.
   *
   * @param api Domain of the API, such as `api.example.com`. It must be registered with the account and enabled for the web.
   * @throws {ApproovSessionError} there is no session, it has ended or was lost, or its first call came without a check result.
   * @throws {ApproovFetchError} communication with the service failed, timed out or was aborted.
   * @throws {ApproovServiceError} the service reported errors, or has no token for this API.
   * @throws {ApproovError} `invalid-argument`, naming each argument that is missing or unusable.
   */
  fetchToken(api: string, options?: TokenOptions | null): Promise<string>

  /**
   * Resolves to a DPoP proof (RFC 9449), signed with the session's key, for one request to a backend.
   *
   * @param method HTTP method of the request, as it will be sent; becomes `htm`.
   * @param uri Absolute URL of the request; query and fragment are ignored; becomes `htu`.
   * @param nonce A value that JSON can carry, unique to the request; becomes `nonce`. Falsy: left out.
   * @param token Approov token that goes with the request; its SHA-256 becomes `ath`. Falsy: left out.
   * @param messageSignature Signature or hash of the message, in whatever form the backend expects; becomes `msgs`. Falsy: left out.
   * @throws {ApproovSessionError} there is no session; `session-expired` if the token is of a session before, whose key is gone.
   * @throws {ApproovError} `invalid-argument`, naming the argument that is unusable.
   */
  getDPoPToken(
    method: string,
    uri: string,
    nonce?: unknown,
    token?: string | null | false | 0,
    messageSignature?: string | null | false | 0,
  ): Promise<string>

  /**
   * Resolves to a signature of a message with the session's key: ECDSA on P-256 over SHA-256, 64 bytes (r and s), as
   * `crypto.subtle.verify` takes it. The public key is in the `jwk` header of the session's DPoP proofs.
   *
   * @param message Bytes to sign. Text has to be encoded first, with `new TextEncoder().encode(text)`.
   * @throws {ApproovSessionError} there is no session.
   * @throws {ApproovError} `invalid-argument` if the message is not bytes, or would be a proof: bytes whose part before the first dot is
   *   the header of one, however it is encoded.
   */
  messageSignature(message: ArrayBufferLike | ArrayBufferView | readonly number[]): Promise<ArrayBuffer>

  /**
   * Resolves to the moments when the session and its check results expire, in milliseconds since the Unix epoch, comparable with
   * `Date.now()`; to `{}` before the session's first token.
   *
   * @throws {ApproovSessionError} there is no session.
   */
  getExpiries(): Promise<Expiries>
}>

/** No options: the session before is configured the same way. */
export type EmptyOptions = { [name in keyof SessionConfiguration | CheckName]?: undefined } & LocalOptions

/** What a session needs: host, site key, and the key of at least one check service. */
export type SessionOptions = SessionConfiguration & AtLeastOneCheck & LocalOptions

/** Options that concern this page alone. */
export interface LocalOptions {
  /** Where the session's private key lives. Default: `auto`, or what the session before had. */
  keyStorage?: KeyStorage | null
  /**
   * The WebAssembly, for setups in which the package cannot find it by itself: where the file is, its bytes, the module compiled
   * already, or a promise of one of these. It counts in the call that loads, which is the first, and not after that.
   */
  wasm?: WasmSource | PromiseLike<WasmSource> | null
}

/** A URL (a string is relative to the page), a response of `fetch`, bytes, or a compiled module. */
export type WasmSource =
  string | URL | Response | ArrayBuffer | ArrayBufferView<ArrayBuffer> | (WebAssembly.Module & object)

export interface SessionConfiguration {
  /**
   * Host of the Approov service, such as `web-1.approovr.io`, optionally with a port. It is reached by https; `http://` may be
   * written before a host of this machine only (`http://localhost:8087`).
   */
  approovHost: string
  /** Approov site key of the account. */
  approovSiteKey: string
}

/** Public keys by which the check services know the site. */
export interface CheckKeys {
  /** Fingerprint public API key. */
  fingerprintPublicAPIKey: string
  /** hCaptcha site key. */
  hcaptchaSiteKey: string
  /** reCAPTCHA site key. */
  recaptchaSiteKey: string
  /** Cloudflare Turnstile site key. */
  turnstileSiteKey: string
  /** Friendly Captcha site key (version 2). */
  friendlyCaptchaSiteKey: string
  /** ALTCHA site key: the service's own check, a proof of work, which the SDK passes by itself. */
  altchaSiteKey: string
}

type CheckName = keyof CheckKeys
type AtLeastOneCheck = { [Name in CheckName]: Pick<CheckKeys, Name> & Partial<Omit<CheckKeys, Name>> }[CheckName]

/**
 * Where the session's private key lives: `webcrypto` is a non-extractable key of the browser, `wasm` is WebAssembly memory, and
 * `auto` (the default) is `webcrypto` wherever the browser offers it.
 */
export type KeyStorage = 'auto' | 'webcrypto' | 'wasm'

export interface TokenOptions {
  /** Data to bind the token to: its SHA-256 becomes the token's `pay` claim. Another value than before drops all cached tokens. */
  payload?: string | ArrayBufferLike | ArrayBufferView | null
  /**
   * Result of a Fingerprint identification: what `get()` of the agent resolves to, version 4 or 3, as it is; or its two IDs under the
   * documented names. A sealed result in it travels along.
   */
  fingerprintIDResult?:
    | FingerprintIDResult
    | {
        event_id: string
        /** Left out in the zero-trust mode of the account. */
        visitor_id?: string
        /** The sealed result as the agent gives it, or its text in base64. */
        sealed_result?: { base64(): string } | string | null
      }
    | null
  /**
   * Token of an hCaptcha challenge, or the object that `hcaptcha.execute({ async: true })` resolves to. An empty text, as a captcha
   * gives before it is solved, is `invalid-argument`, here and in the other captchas' options.
   */
  hcaptchaToken?: string | HCaptchaToken | null
  /** Token of a reCAPTCHA challenge. */
  recaptchaToken?: string | null
  /** Token of a Turnstile challenge: what the widget's `callback` gets, or `turnstile.getResponse()` returns. */
  turnstileToken?: string | null
  /** Response of a Friendly Captcha widget: `detail.response` of its `frc:widget.complete` event, or what `getResponse()` returns. */
  friendlyCaptchaResponse?: string | null
  /**
   * Payload of an ALTCHA widget, or `true`: solve a challenge of the service now. Left out, one is solved when the session needs it
   * and ALTCHA is its only check. Solving takes about a second on a phone; `timeout` begins after it, `signal` stops it.
   */
  altchaPayload?: string | true | null
  /** How long to wait for a response of the service, in milliseconds. Default: 10,000. */
  timeout?: number | null
  /** Gives the call up when aborted; others that wait for the same token are not affected. */
  signal?: AbortSignal | null
}

export type FingerprintIDResult =
  | { fingerprintVisitorId: string; fingerprintRequestId: string }
  | { visitorId: string; requestId: string; sealedResult?: string | null }

export interface HCaptchaToken {
  /** The token. */
  response: string
  /** Challenge key, as from `hcaptcha.getRespKey()`. */
  key?: string | null
  /** Root host domain that the response must be for. */
  host?: string | null
}

/** Moments in milliseconds since the Unix epoch, by the local clock. */
export interface Expiries {
  /** End of the session. */
  session?: number
  /** End of a check result: `fp:KEY`, `hcap:KEY`, `recap:KEY`, `turnstile:KEY`, `friendly:KEY` or `altcha:KEY`. */
  [result: string]: number | undefined
}

/** What went wrong; stable, for programs. */
export type ErrorCode =
  /** An argument is missing or unusable; the message names each. {@link ApproovError} */
  | 'invalid-argument'
  /** The browser lacks something that is needed. {@link ApproovError} */
  | 'unsupported'
  /** The WebAssembly did not load; the next call tries again. {@link ApproovError} */
  | 'load-failed'
  /** The SDK itself failed. {@link ApproovError} */
  | 'internal'
  /** There is no session. {@link ApproovSessionError} */
  | 'not-initialized'
  /** The session's first token needs the result of a check. {@link ApproovSessionError} */
  | 'results-required'
  /** The session has ended. {@link ApproovSessionError} */
  | 'session-expired'
  /** The session was lost, since the WebAssembly stopped; the next `initializeSession` has a fresh instance. {@link ApproovSessionError} */
  | 'session-lost'
  /** The service was not reached. {@link ApproovFetchError} */
  | 'network'
  /** No response came in time. {@link ApproovFetchError} */
  | 'timeout'
  /** The caller's signal was aborted. {@link ApproovFetchError} */
  | 'aborted'
  /** The response was not one of the service. {@link ApproovFetchError} */
  | 'invalid-response'
  /** The service refused the request; `errors` says why. {@link ApproovServiceError} */
  | 'service'
  /** The service gave no token for this API. {@link ApproovServiceError} */
  | 'token-unavailable'
  | CheckErrorCode

/** Why a check could not be passed. {@link ApproovCheckError} */
export type CheckErrorCode =
  /** Its script did not load: something blocks it, or there is no connection. Retryable */
  | 'check-blocked'
  /** The script or the answer took too long. Retryable */
  | 'check-timeout'
  /** The visitor closed the challenge. */
  | 'check-cancelled'
  /** The check service said so; `cause` is what it said. Retryable */
  | 'check-failed'
  /** It cannot run here: no document, or a browser that the check service does not know. */
  | 'check-unsupported'

/** Passes a check, and resolves to its result as `fetchToken` takes it. */
export type Check = (context: CheckContext) => TokenOptions | Promise<TokenOptions>

/** What a check is run for. */
export interface CheckContext {
  /** Aborted when the result is not wanted any more. */
  readonly signal: AbortSignal
  /** Why: there is no session yet; it has ended; an API refused its tokens; or `renew()` was called. */
  readonly reason: 'start' | 'expired' | 'refused' | 'ahead'
  /** The site keys of the session, so that they are written once. */
  readonly keys: Readonly<Partial<CheckKeys>>
}

/** Base of all errors of the SDK. */
export class ApproovError extends Error {
  constructor(
    message?: string,
    properties?: { code?: ErrorCode; retryable?: boolean; cause?: unknown; errors?: unknown },
  )
  /** What went wrong; stable, for programs. */
  readonly code: ErrorCode
  /** Whether repeating the same call, unchanged, may succeed. */
  readonly retryable: boolean
  /** What was thrown underneath, if anything was. */
  readonly cause?: unknown
}

/** There is no session, or it has ended, or was lost: call `initializeSession`, pass the check again, and fetch a token with its result. */
export class ApproovSessionError extends ApproovError {
  readonly code: 'not-initialized' | 'results-required' | 'session-expired' | 'session-lost'
  /** The codes of the service, if it ended the session. */
  readonly errors?: Record<string, string>
}

/** Communication with the Approov service failed. */
export class ApproovFetchError extends ApproovError {
  readonly code: 'network' | 'timeout' | 'aborted' | 'invalid-response'
  /** The cause: what `fetch` threw, the reason of the signal, or an `Error` that says what was wrong with the response. */
  readonly errors: unknown
}

/**
 * The Approov service reported errors. The message is the status text of the response; where it has none (HTTP/2), the usual one and
 * the codes.
 */
export class ApproovServiceError extends ApproovError {
  readonly code: 'service' | 'token-unavailable'
  /** Error codes of the service with their details, which may be empty. */
  readonly errors: Record<string, string>
}

/** A check could not be passed: see `approov-web-sdk/checks`. */
export class ApproovCheckError extends ApproovError {
  constructor(
    message?: string,
    properties?: { code?: CheckErrorCode; retryable?: boolean; cause?: unknown; check?: string },
  )
  readonly code: CheckErrorCode
  /** Its name, such as `hcaptcha`. */
  readonly check: string
}
