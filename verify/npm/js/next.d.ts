import type { Verified, Verifier, VerifierOptions } from './index.js'

/** Makes route handlers that are called for good requests only. */
export function approov(
  options: VerifierOptions | Verifier,
): <Context extends object, R extends Request = Request>(
  handler: (request: R, context: Context & { approov: Verified }) => Response | Promise<Response>,
) => (request: R, context: Context) => Promise<Response>
