// What the types allow, and what they do not: compiled, never run.
import { createVerifier, memoryStore, redisStore, type Verdict, type VerifierOptions } from 'approov-verify'
import { approov as forExpress } from 'approov-verify/express'
import { approov as forHono } from 'approov-verify/hono'
import { approov as forNext } from 'approov-verify/next'

const options: VerifierOptions = {
  publicUrl: ['https://api.example.com'],
  secret: 'base64',
  proof: 'required',
  cors: { origins: 'https://app.example.com' },
  store: redisStore({ call: async (...words: string[]) => words.length }),
}
const verifier = createVerifier({ ...options, store: memoryStore({ capacity: 10 }) })

export async function visitor(request: Request): Promise<string | undefined> {
  const verdict: Verdict = await verifier.verify(request)
  if (verdict.ok === false) throw new Error(`${verdict.status} ${verdict.code}`)
  // @ts-expect-error a good verdict has no code
  verdict.code
  return verdict.claims.ip
}

export const handler = verifier.protect((request, approov) => Response.json([request.url, approov.proof?.jti]))
export const middleware = [forExpress(options), forExpress(verifier), forHono(options)]
export const POST = forNext(options)((request: Request, { approov, params }: { params: object; approov: any }) =>
  Response.json({ ip: approov.claims.ip, params }),
)

// @ts-expect-error a verifier needs a public URL
createVerifier({ secret: 'base64' })
// @ts-expect-error there is no such policy
createVerifier({ ...options, proof: 'always' })
// @ts-expect-error an unknown option
createVerifier({ publicUrl: 'https://api.example.com', secert: 'base64' })
