// A protected API: APPROOV_SECRET=… PUBLIC_URL=https://api.example.com node server.mjs
import { createServer } from 'node:http'
import { createVerifier, publicUrl, Refusal } from './verify.mjs'

const { APPROOV_SECRET, PUBLIC_URL, PORT = '8080' } = process.env
const verify = createVerifier({ secret: APPROOV_SECRET, proof: 'required' })
// Configured: a Host header could name another server, for which a proof was stolen.
const urlOf = publicUrl(PUBLIC_URL)
const MAX_BODY = 1 << 20

async function read(request) {
  const chunks = []
  let length = 0
  for await (const chunk of request) {
    length += chunk.length
    if (length <= MAX_BODY) chunks.push(chunk)
  }
  return length <= MAX_BODY ? Buffer.concat(chunks) : null
}

createServer(async (request, response) => {
  const respond = (status, value, headers = {}) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))
  try {
    const body = await read(request)
    if (body === null) return respond(413, { detail: 'the body is too long' })
    const headers = Object.entries(request.headersDistinct).flatMap(([name, values]) =>
      values.map((value) => [name, value]),
    )
    const { claims, proof } = await verify({ method: request.method, url: urlOf(request.url), headers, body })
    respond(200, { claims, proof })
  } catch (error) {
    if (error instanceof Refusal) {
      const { status, message, header } = error
      return respond(status, { detail: message }, status === 401 ? { 'www-authenticate': header } : {})
    }
    console.error(error)
    respond(500, { detail: 'the request cannot be checked at the moment' })
  }
}).listen(Number(PORT), '127.0.0.1', function () {
  console.log(`listening on http://127.0.0.1:${this.address().port}`)
})
