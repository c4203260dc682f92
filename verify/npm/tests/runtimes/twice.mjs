// Checks the same request twice. For Bun and Deno.
import { argv } from 'node:process'
import { createVerifier } from '../node_modules/approov-verify/index.js'

const { options, headers } = JSON.parse(argv[2])
const verifier = createVerifier(options)
const request = () => new Request('http://10.0.0.1/order', { method: 'POST', headers, body: 'two' })
const first = request()
const { ok, code } = await verifier.verify(first)
console.log(ok ? 'ok' : code, await first.text(), (await verifier.verify(request())).code)
