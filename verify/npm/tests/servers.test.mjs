// The same requests to each kind of server.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { serve } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { createVerifier } from 'approov-verify'
import { approov as forExpress } from 'approov-verify/express'
import { approov as forFastify } from 'approov-verify/fastify'
import { approov as forHono } from 'approov-verify/hono'
import { approov as forNext } from 'approov-verify/next'
import { nodeServer, OPTIONS, PUBLIC_URL, send, session } from './support.mjs'

const CORS = { origins: ['https://app.example.com'] }
const options = { ...OPTIONS, cors: CORS, serverNonces: 'offered' }

async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => (server.closeAllConnections(), server.close())
  return { address: `http://127.0.0.1:${server.address().port}`, close }
}

/** What a handler got: the path, what its own parser read, and a claim. */
const seen = (url, body, { claims }) => ({ path: new URL(url, PUBLIC_URL).pathname, body, ip: claims?.ip })

/** Each responds with what its handler saw. */
const SERVERS = {
  Express() {
    const app = express()
    app.use(forExpress(options))
    app.use(express.json())
    app.use(express.text({ type: '*/*', limit: '4mb' }))
    app.all('/order', (request, response) => response.json(seen(request.originalUrl, request.body, request.approov)))
    return listening(createServer(app))
  },
  'an Express router mounted below a path'() {
    const app = express()
    const router = express.Router()
    router.use(forExpress(options))
    router.use(express.json())
    router.use(express.text({ type: '*/*', limit: '4mb' }))
    router.all(/.*/, (request, response) => response.json(seen(request.originalUrl, request.body, request.approov)))
    app.use('/order', router)
    return listening(createServer(app))
  },
  async Fastify() {
    const app = fastify()
    app.register(forFastify, options)
    app.addContentTypeParser('text/plain', { parseAs: 'string' }, (request, body, done) => done(null, body))
    app.register(async (inner) => {
      inner.route({
        method: ['GET', 'POST', 'OPTIONS'],
        url: '/order',
        handler: async (request) => seen(request.originalUrl, request.body, request.approov),
      })
    })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    return { address, close: () => app.close() }
  },
  async Hono() {
    const app = new Hono()
    app.use(forHono(options))
    app.all('/order', async (c) => {
      const json = c.req.header('content-type')?.includes('json')
      return c.json(seen(c.req.url, json ? await c.req.json() : await c.req.text(), c.get('approov')))
    })
    const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
    if (!server.listening) await once(server, 'listening')
    const close = () => (server.closeAllConnections(), server.close())
    return { address: `http://127.0.0.1:${server.address().port}`, close }
  },
  Next() {
    const handler = forNext(options)(async (request, { approov }) => {
      const json = request.headers.get('content-type')?.includes('json')
      return Response.json(seen(request.url, json ? await request.json() : await request.text(), approov))
    })
    return listening(nodeServer((request) => handler(request, { params: {} })))
  },
  'a handler of the Fetch API'() {
    const handler = createVerifier(options).protect(async (request, approov) => {
      const json = request.headers.get('content-type')?.includes('json')
      return Response.json(seen(request.url, json ? await request.json() : await request.text(), approov))
    })
    return listening(nodeServer(handler))
  },
}

for (const [name, start] of Object.entries(SERVERS)) {
  describe(name, () => {
    let server
    before(async () => (server = await start()))
    after(() => server?.close())
    const JSON_TYPE = { 'Content-Type': 'application/json' }

    test('a good request reaches the handler with its claims, and its parser gets the body', async () => {
      const { headers } = await session()
      const body = '{"shapes": ["circle", "é"]}'
      for (const covered of [body, undefined]) {
        const sent = { ...(await headers('POST', '/order', { body: covered })), ...JSON_TYPE }
        const response = await send(server.address, '/order?x=1', sent, { body })
        assert.equal(response.status, 200, response.body)
        assert.match(response.body, /"shapes":\["circle","é"\]/)
        assert.match(response.body, /192\.0\.2\.1/)
      }
    })

    test('a body in many pieces, and one in chunks of unknown length, is compared and parsed', async () => {
      const { headers } = await session()
      const body = JSON.stringify({ text: 'x'.repeat(90_000) })
      const sent = { ...(await headers('POST', '/order', { body })), ...JSON_TYPE }
      const pieces = new ReadableStream({
        async start(controller) {
          for (let at = 0; at < body.length; at += 8192) {
            controller.enqueue(new TextEncoder().encode(body.slice(at, at + 8192)))
            await new Promise((resolve) => setImmediate(resolve))
          }
          controller.close()
        },
      })
      for (const given of [{ body: pieces, duplex: 'half' }, { body }]) {
        const DPoP = (await headers('POST', '/order', { body })).DPoP
        const response = await fetch(`${server.address}/order`, {
          method: 'POST',
          headers: { ...sent, DPoP },
          ...given,
        })
        assert.equal(response.status, 200)
        assert.equal((await response.json()).body.text.length, 90_000)
      }
    })

    test('another body, method, path and host, a replay, no token and no proof are refused', async () => {
      const { token, headers } = await session()
      const [mine, other] = [await headers('POST', '/order', { body: 'two' }), await session()]
      const TEXT = { 'Content-Type': 'text/plain' }
      const verdict = async (fields, request = {}, target = '/order') => {
        const { status, body } = await send(server.address, target, { ...TEXT, ...fields }, { body: 'two', ...request })
        return status === 200 ? 'ok' : JSON.parse(body).code
      }
      assert.equal(await verdict(mine, { body: 'three' }), 'message_mismatch')
      assert.equal(await verdict(mine, { method: 'GET', body: '' }), 'proof_method')
      assert.equal(await verdict(await headers('POST', '/orders', { body: 'two' })), 'proof_url')
      assert.equal(await verdict({ ...mine, 'Approov-Token': other.token }), 'proof_token_hash')
      assert.equal(await verdict(mine), 'ok')
      assert.equal(await verdict(mine), 'proof_replayed')
      assert.equal(await verdict({ 'Approov-Token': token }), 'proof_missing')
      assert.equal(await verdict({}), 'token_missing')
      assert.equal(await verdict({ 'X-Forwarded-Host': 'evil.example', ...mine }), 'proof_replayed')
    })

    test('the empty body of a proof is compared, too', async () => {
      const { headers } = await session()
      const response = await send(server.address, '/order', await headers('GET', '/order', { body: '' }), {
        method: 'GET',
      })
      assert.equal(response.status, 200, response.body)
      const wrong = await headers('GET', '/order', { body: 'x' })
      assert.equal((await send(server.address, '/order', wrong, { method: 'GET' })).status, 401)
    })

    test('no target leads to another server, or to another path than it seems', async () => {
      const { headers } = await session()
      for (const [target, path] of [
        ['//evil.example/order', '/order'],
        ['/public/../order', '/order'],
        ['/public/%2e%2e/order', '/order'],
        ['/order%2f..', '/order'],
      ]) {
        const { status, body } = await send(server.address, target, await headers('POST', path))
        // Servers of the Fetch API resolve targets before anybody sees them: then the handler is where the proof leads, too.
        const reading = status === 200 && name !== 'Express' && JSON.parse(body).path === path
        assert.ok(reading || [400, 401, 404].includes(status), `${target}: ${status} ${body}`)
      }
    })

    test('a body beyond the limit is refused', async () => {
      const { headers } = await session()
      const body = 'x'.repeat((1 << 20) + 1)
      const response = await fetch(`${server.address}/order`, {
        method: 'POST',
        headers: { ...(await headers('POST', '/order', { body })), 'Content-Type': 'text/plain' },
        body,
      })
      assert.equal(response.status, 413)
    })

    test('preflights need no token, pages of the origin can read refusals and the nonce, others cannot', async () => {
      const preflight = (origin) =>
        fetch(`${server.address}/order`, {
          method: 'OPTIONS',
          headers: {
            Origin: origin,
            'Access-Control-Request-Method': 'POST',
            'Access-Control-Request-Headers': 'dpop',
          },
        })
      const allowed = await preflight('https://app.example.com')
      assert.equal(allowed.status, 204)
      assert.equal(allowed.headers.get('access-control-allow-origin'), 'https://app.example.com')
      assert.match(allowed.headers.get('access-control-allow-headers'), /DPoP/)
      assert.equal((await preflight('https://evil.example')).headers.get('access-control-allow-origin'), null)

      const { headers } = await session()
      for (const [fields, status] of [
        [{}, 401],
        [await headers('GET', '/order'), 200],
      ]) {
        const response = await fetch(`${server.address}/order`, {
          headers: { Origin: 'https://app.example.com', ...fields },
        })
        assert.equal(response.status, status)
        assert.equal(response.headers.get('access-control-allow-origin'), 'https://app.example.com')
        assert.match(response.headers.get('access-control-expose-headers'), /DPoP-Nonce, WWW-Authenticate/)
        assert.ok(response.headers.get('dpop-nonce').length > 40)
        if (status === 401) assert.match(response.headers.get('www-authenticate'), /^DPoP /)
      }
    })
  })
}

test('in Express, a body that somebody parsed before is an error that says so, and raw bytes that were kept are taken', async () => {
  const { headers } = await session()
  const raw = (request, response, bytes) => (request.rawBody = bytes)
  for (const [parser, status] of [
    [express.json(), 500],
    [express.json({ verify: raw }), 200],
  ]) {
    const app = express()
    app.use(parser)
    app.use(forExpress(OPTIONS))
    app.post('/order', (request, response) => response.json(request.body))
    app.use((error, request, response, next) => response.status(500).send(error.message))
    const server = await listening(createServer(app))
    const sent = { ...(await headers('POST', '/order', { body: '{}' })), 'Content-Type': 'application/json' }
    const response = await send(server.address, '/order', sent, { body: '{}' })
    server.close()
    assert.equal(response.status, status)
    if (status === 500) assert.match(response.body, /put approov\(\) in front of express\.json\(\)/)
  }
})

test('a middleware that monitors lets everything pass, and says why it would not have', async () => {
  const seen = []
  const app = express()
  app.use(forExpress({ ...OPTIONS, monitor: true, onRefused: ({ code }) => seen.push(code) }))
  app.post('/order', (request, response) => response.json({ code: request.approov.code ?? null }))
  const server = await listening(createServer(app))
  assert.deepEqual(JSON.parse((await send(server.address, '/order')).body), { code: 'token_missing' })
  const { headers } = await session()
  assert.deepEqual(JSON.parse((await send(server.address, '/order', await headers('POST', '/order'))).body), {
    code: null,
  })
  server.close()
  assert.deepEqual(seen, ['token_missing'])
})

test('in Express, a client that disconnects in the middle of its body is an error, not a request that waits for ever', async () => {
  const { headers } = await session()
  const app = express()
  const failed = deferred()
  app.use(forExpress(OPTIONS))
  app.use((error, request, response, next) => failed.resolve(error))
  const server = await listening(createServer(app))
  const { hostname, port } = new URL(server.address)
  const socket = connect(Number(port), hostname)
  const sent = {
    Host: 'api.example.com',
    'Content-Length': 10,
    ...(await headers('POST', '/order', { body: '0123456789' })),
  }
  const lines = Object.entries(sent).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`POST /order HTTP/1.1\r\n${lines.join('')}\r\n01234`)
  assert.ok((await failed.promise) instanceof Error)
  server.close()
})

function deferred() {
  let resolve
  const promise = new Promise((settle) => (resolve = settle))
  return { promise, resolve }
}
