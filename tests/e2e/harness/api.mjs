// A backend on an origin of its own that notes what reaches it and responds as a test says.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'

/** @param {string | Buffer} bytes */
export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('base64url')

/** @param {import('node:http').IncomingMessage} request */
const corsOf = ({ headers }) => ({
  'Access-Control-Allow-Origin': headers.origin ?? '*',
  'Access-Control-Allow-Credentials': 'true',
  'Access-Control-Allow-Headers': headers['access-control-request-headers'] ?? '*',
  'Access-Control-Allow-Methods': 'GET, HEAD, POST, PUT, PATCH, DELETE',
  'Access-Control-Expose-Headers': 'WWW-Authenticate, DPoP-Nonce, X-Seen',
  Vary: 'Origin',
})

/** The claims of a proof or token. @param {string} jwt */
export const claimsOf = (jwt) => JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url').toString())

/** What the backend responds with to one request. @typedef {{status?: number, headers?: Record<string, string>, body?: string, cut?: boolean, hang?: boolean}} Reply */

/** A backend, which `start` lets listen. */
export function createApi() {
  /** @type {(request: any, count: number) => Reply} */
  let handler
  let seen
  const server = createServer((request, response) => {
    const cors = corsOf(request)
    if (request.method === 'OPTIONS') return response.writeHead(204, cors).end()
    const chunks = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('error', () => {})
    request.on('end', () => {
      const bytes = Buffer.concat(chunks)
      const boundary = /boundary=(.+)/.exec(request.headers['content-type'] ?? '')?.[1]
      const note = {
        method: request.method,
        url: request.url,
        headers: { ...request.headers },
        hash: sha256(bytes),
        length: bytes.length,
        /** A form, without the boundary, which is random. */
        form: boundary && bytes.toString('latin1').replaceAll(boundary, ''),
      }
      const count = seen.push(note)
      const { status = 200, headers, body = 'done', cut, hang } = handler(note, count)
      if (hang) return
      if (cut) return request.socket.destroy()
      response.writeHead(status, { 'Content-Type': 'text/plain', 'Cache-Control': 'no-store', ...cors, ...headers })
      response.end(status === 204 || status === 304 ? undefined : body)
    })
  })
  const api = {
    url: '',
    /** What happens to requests from now on; what was seen so far is forgotten. @param {(request: any, count: number) => Reply} [next] */
    reply(next = () => ({})) {
      handler = next
      seen = []
    },
    /** What has come since, without preflights. */
    seen: () => seen,
    async start() {
      await new Promise((resolve, reject) => {
        server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
      })
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
      api.url = `http://127.0.0.1:${port}`
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      }),
  }
  api.reply()
  return api
}
