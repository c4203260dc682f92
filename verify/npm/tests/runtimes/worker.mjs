// A worker; OPTIONS is put in when it is bundled.
import { createVerifier, memoryStore } from 'approov-verify'

let message
try {
  createVerifier(OPTIONS)
} catch (error) {
  message = error.message.includes('memory protects nothing')
}
const verifier = createVerifier({ ...OPTIONS, store: memoryStore() })

export default {
  fetch: verifier.protect(async (request, { claims }) =>
    Response.json({ body: await request.text(), ip: claims.ip, message }),
  ),
}
