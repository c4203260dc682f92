import { createVerifier, memoryStore } from 'approov-verify'

// One instance alone; several need redisStore or a store of your own.
const verifier = createVerifier({
  publicUrl: process.env.PUBLIC_URL,
  secret: process.env.APPROOV_SECRET,
  store: memoryStore(),
})

export default {
  fetch: verifier.protect(async (request, approov) =>
    Response.json({ ordered: await request.json(), from: approov.claims.ip }),
  ),
}
