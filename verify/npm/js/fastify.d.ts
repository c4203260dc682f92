import type { Verified, Verifier, VerifierOptions } from './index.js'

/** A plugin: `fastify.register(approov, options)`. With TypeScript, declare `request.approov` as `Verified`. */
export function approov(fastify: any, options: VerifierOptions | Verifier): Promise<void>
export default approov
export type { Verified }
