/** One value or several. */
export type OneOrMore<T> = T | readonly T[]

export interface VerifierOptions {
  /** Where clients find this server, such as `https://api.example.com`; with a path if a proxy takes it off. Never from a request. */
  publicUrl: OneOrMore<string>
  /** The account's secret, base64 or base64url. Several while it is being changed. */
  secret?: OneOrMore<string>
  /** The account's keyset: a JWK Set. */
  jwks?: string | { keys: object[] }
  /** The account's public keys as PEM. */
  pem?: string
  /** Where the service publishes the keyset. Cached; fetched again every five minutes and for an unknown `kid`, once a minute at most. */
  jwksUrl?: string
  /** Secrets of encrypted tokens. */
  jweSecret?: OneOrMore<string>
  requireEncryption?: boolean
  algorithms?: ('HS256' | 'RS256' | 'ES256')[]
  /** Accepts tokens with this `iss` only. */
  issuer?: string
  /** Accepts tokens for this `aud` only. */
  audience?: string
  channel?: 'web' | 'mobile'
  /** When there must be a proof. Default: when the token is bound to a key, as web tokens are. */
  proof?: 'whenBound' | 'required' | 'optional'
  /** What is done about a proof's `msgs`, which covers the body. Default: checked when it is there. */
  message?: 'whenPresent' | 'required' | 'ignored'
  /** What is done about a proof's `htq`, which covers the query. Default: checked when it is there. */
  query?: 'whenPresent' | 'required' | 'ignored'
  nonce?: 'uniqueWhenDemanded' | 'required' | 'ignored'
  /** Nonces of RFC 9449 section 8: sent with every response, demanded if `required`. */
  serverNonces?: 'off' | 'offered' | 'required'
  nonceSecret?: OneOrMore<string>
  /** Headers whose value the token must be bound to (`pay`). A request without them is refused. */
  boundToHeader?: OneOrMore<string>
  requireBinding?: boolean
  allowDebugTokens?: boolean
  tokenHeader?: string
  maxTokenLength?: number
  /** Seconds. Defaults: 5, 60, 15, 600. */
  clockLeeway?: number
  maxProofAge?: number
  clockSkew?: number
  nonceTtl?: number
  /** Refuses bad tokens, and only notes in `wouldFail` what is wrong with proofs. */
  monitorProofs?: boolean
  /** Refuses nothing: middleware lets every request pass, with its verdict. */
  monitor?: boolean
  /** Called with each refusal, and with what would be one. For logs. */
  onRefused?: (verdict: Refused | Verified) => void
  /** Where used proofs are remembered. Default: the memory of this process, for a million of them. */
  store?: Store
  /** The longest body that is read to compare it with a proof, in bytes. Default: 1 MiB. */
  bodyLimit?: number
  /** Responds to preflights and lets pages of these origins read responses. */
  cors?: {
    origins: OneOrMore<string>
    methods?: OneOrMore<string>
    /** Request headers beyond those of Approov. */
    headers?: OneOrMore<string>
    /** Response headers beyond `WWW-Authenticate` and `DPoP-Nonce`. */
    expose?: OneOrMore<string>
    credentials?: boolean
    maxAge?: number
  }
  /** Fetches the keys at `jwksUrl`. Default: `fetch`, without redirects, 5 seconds at most. */
  fetchKeys?: (url: string) => Promise<string>
  /** Milliseconds since 1970, for tests. Default: `Date.now`. */
  clock?: () => number
}

export interface Store {
  prefix?: string
  capacity?: number
  send?(command: Uint8Array[]): Promise<number>
}

/** A client of `ioredis` or `redis`. */
export type RedisClient = { call(...words: any[]): Promise<unknown> } | { sendCommand(words: any[]): Promise<unknown> }

export function redisStore(client: RedisClient, options?: { prefix?: string }): Store
export function memoryStore(options?: { capacity?: number }): Store

export interface Claims {
  exp: number
  iat?: number
  ip?: string
  arc?: string
  did?: string
  iss?: string
  aud?: string | string[]
  pay?: string
  cnf?: { jkt: string }
  /** Results of the checks: `hcap:SITE_KEY`, `fp:API_KEY`, … */
  embed?: Record<string, Record<string, unknown>>
  [claim: string]: unknown
}

export interface ProofClaims {
  jti: string
  htm: string
  htu: string
  iat: number
  nonce?: unknown
  ath?: string
  msgs?: string
  htq?: string
}

export interface Verified {
  ok: true
  channel: 'web' | 'mobile' | 'unspecified'
  claims: Claims
  /** Null when there was no proof. */
  proof: ProofClaims | null
  /** What would have been refused if proofs were not only monitored. */
  wouldFail: string | null
  /** For every response. */
  headers: Record<string, string>
}

export interface Refused {
  ok: false
  /** What to respond: 401, or 429, 413, 500, 503; 204 for a preflight. */
  status: number
  /** A stable name: `token_expired`, `proof_url`, … */
  code: string
  /** For the client. */
  detail: string
  /** For logs. */
  log?: string
  challenge: 'none' | 'invalid_token' | 'invalid_dpop_proof' | 'use_dpop_nonce' | null
  headers: Record<string, string>
  /** A problem document (RFC 9457). */
  body: string
}

export type Verdict = Verified | Refused

export interface RequestDescription {
  method: string
  /** The URL as the client sees it, or else: */
  url?: string
  /** The request target as it was received, such as `/order?to=alice`. It is joined to the public URL. */
  target?: string
  /** As they were received, repeated ones repeatedly; one character for each byte. */
  headers: [name: string, value: string][]
  /** Data that the token must be bound to. */
  binding?: string
  /** Called when a proof covers the body: its bytes, or null when it is longer than the limit. */
  readBody?: () => Uint8Array | null | undefined | Promise<Uint8Array | null | undefined>
}

export class Verifier {
  constructor(options: VerifierOptions)
  readonly bodyLimit: number
  readonly monitor: boolean
  /** Checks a request of the Fetch API, whose body can be read afterwards. */
  verify(request: Request, options?: { binding?: string }): Promise<Verdict>
  check(request: RequestDescription): Promise<Verdict>
  /** A handler of the Fetch API that is called for good requests only. */
  protect<Rest extends unknown[], R extends Request = Request>(
    handler: (request: R, approov: Verified, ...rest: Rest) => Response | Promise<Response>,
  ): (request: R, ...rest: Rest) => Promise<Response>
  admits(verdict: Verdict): boolean
}

export function createVerifier(options: VerifierOptions | Verifier): Verifier

/** The response to a refused request. */
export function refusal(verdict: Refused): Response

export function addHeaders(
  verdict: Verdict,
  append: (name: string, value: string) => void,
  set?: (name: string, value: string) => void,
): void

/** Whether a proof for `htu` is one for this URL, or for this target of it. Undefined: no proof is. */
export function isSameUrl(htu: string, url: string, target?: string): boolean | undefined
