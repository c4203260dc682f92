import type { Verified, Verifier, VerifierOptions } from './index.js'

/** Middleware of Hono. With TypeScript: `new Hono<{ Variables: ApproovVariables }>()`. */
export function approov(
  options: VerifierOptions | Verifier,
): (c: any, next: () => Promise<void>) => Promise<Response | void>
export type ApproovVariables = { approov: Verified }
