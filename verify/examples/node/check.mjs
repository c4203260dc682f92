// Reads {"secret", "now"?, "options"?, "request"} as JSON from standard input and prints the verdict as JSON:
// {"accepted": true, "claims", "proof"} or {"accepted": false, "challenge", "detail"}. For tests with real browsers.
import { text } from 'node:stream/consumers'
import { createVerifier, Refusal } from './verify.mjs'

const { secret, now = Date.now() / 1000, options = {}, request } = JSON.parse(await text(process.stdin))
try {
  console.log(
    JSON.stringify({ accepted: true, ...(await createVerifier({ ...options, secret })(request, now * 1000)) }),
  )
} catch (error) {
  if (!(error instanceof Refusal)) throw error
  console.log(JSON.stringify({ accepted: false, challenge: error.challenge, detail: error.message }))
}
