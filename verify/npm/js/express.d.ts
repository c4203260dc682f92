import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Verified, Verifier, VerifierOptions } from './index.js'

declare global {
  namespace Express {
    interface Request {
      approov: Verified
    }
  }
}

export function approov(
  options: VerifierOptions | Verifier,
): (request: IncomingMessage, response: ServerResponse, next: (error?: unknown) => void) => Promise<void>
