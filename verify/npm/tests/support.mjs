// A browser session as the SDK makes it, and requests that are sent as they are.
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from 'jose'

export const PUBLIC_URL = 'https://api.example.com'
export const SECRET = randomBytes(64)
export const OPTIONS = { publicUrl: PUBLIC_URL, secret: SECRET.toString('base64'), proof: 'required' }

const hash = (data) => createHash('sha256').update(data).digest('base64url')

export async function session(claims = {}) {
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const jwk = await exportJWK(publicKey)
  const cnf = { jkt: await calculateJwkThumbprint(jwk) }
  const token = await new SignJWT({ embed: {}, cnf, ip: '192.0.2.1', ...claims })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setExpirationTime('2m')
    .sign(SECRET)
  /** A proof for a request; `body` undefined leaves the body out of it. */
  const proof = (htm, path, { body, ...more } = {}) =>
    new SignJWT({
      jti: randomUUID(),
      htm,
      htu: `${PUBLIC_URL}${path}`,
      ath: hash(token),
      ...(body === undefined ? {} : { msgs: hash(body) }),
      ...more,
    })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
      .setIssuedAt()
      .sign(privateKey)
  const headers = async (...request) => ({ 'Approov-Token': token, DPoP: await proof(...request) })
  return { token, proof, headers }
}

/** A handler of the Fetch API on Node's server, as frameworks mount one. */
export function nodeServer(handler) {
  return createServer(async (request, response) => {
    const hasBody = !['GET', 'HEAD', 'OPTIONS'].includes(request.method)
    const given = new Request(new URL(request.url, PUBLIC_URL), {
      method: request.method,
      headers: Object.entries(request.headersDistinct).flatMap(([name, values]) =>
        values.map((value) => [name, value]),
      ),
      ...(hasBody ? { body: Readable.toWeb(request), duplex: 'half' } : {}),
    })
    const { status, headers, body } = await handler(given)
    response.writeHead(status, [...headers].flat())
    if (body) for await (const chunk of body) response.write(chunk)
    response.end()
  })
}

/** The response to a request whose target is sent as it is, which `fetch` would not do. */
export async function send(address, target, headers = {}, { method = 'POST', body = '' } = {}) {
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  const fields = { Host: 'api.example.com', 'Content-Length': Buffer.byteLength(body), Connection: 'close', ...headers }
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n${body}`)
  const [head, ...rest] = (await text(socket)).split('\r\n\r\n')
  const content = rest.join('\r\n\r\n')
  return {
    status: Number(head.split(' ')[1]),
    head,
    body: /^transfer-encoding: *chunked/im.test(head) ? joined(content) : content,
  }
}

/** The content of chunks. */
function joined(chunks) {
  let [content, rest] = ['', Buffer.from(chunks)]
  for (;;) {
    const end = rest.indexOf('\r\n')
    const length = parseInt(rest.subarray(0, end).toString(), 16)
    if (!(length > 0)) return content
    content += rest.subarray(end + 2, end + 2 + length).toString()
    rest = rest.subarray(end + 2 + length + 2)
  }
}
