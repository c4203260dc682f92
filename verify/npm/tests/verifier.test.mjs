import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { createVerifier, memoryStore, redisStore } from 'approov-verify'
import { OPTIONS, PUBLIC_URL, send, session } from './support.mjs'

const URL_OF_ORDER = `${PUBLIC_URL}/order`
const request = (headers, init = {}) => new Request('http://10.0.0.1:8080/order', { method: 'POST', headers, ...init })
const codeOf = async (verdict) => ((verdict) => (verdict.ok ? 'ok' : verdict.code))(await verdict)

test('a Request is checked by its path and the public URL, and its body can still be read', async () => {
  const { headers } = await session()
  const given = request(await headers('POST', '/order', { body: 'two' }), { body: 'two' })
  const verdict = await createVerifier(OPTIONS).verify(given)
  assert.equal(verdict.ok, true)
  assert.equal(verdict.channel, 'web')
  assert.equal(verdict.claims.ip, '192.0.2.1')
  assert.equal(verdict.proof.htu, URL_OF_ORDER)
  assert.equal(await given.text(), 'two')
})

test('options that cannot be used are refused with a message that names them', () => {
  for (const [options, message] of [
    [{ ...OPTIONS, publicUrl: 'api.example.com' }, /"api\.example\.com" is not a URL such as https:/],
    [{ ...OPTIONS, secret: 'short' }, /secret/],
    [{ ...OPTIONS, proofs: 'required' }, /unknown option `proofs`/],
    [{ ...OPTIONS, proof: 'always' }, /proof must be one of when_?bound/i],
    [{ publicUrl: PUBLIC_URL }, /needs a secret or a keyset/],
    [{ publicUrl: PUBLIC_URL, jwksUrl: 'http://service.example/jwks.json' }, /https/],
    [{ ...OPTIONS, cors: { origins: 'app.example.com' } }, /is not an origin/],
    [{ ...OPTIONS, cors: { origins: '*', credentials: true } }, /allows every origin/],
  ]) {
    assert.throws(() => createVerifier(options), message)
  }
})

test('where instances come and go, a verifier without a store is not made', () => {
  process.env.AWS_LAMBDA_FUNCTION_NAME = 'orders'
  try {
    assert.throws(() => createVerifier(OPTIONS), /memory protects nothing/)
    createVerifier({ ...OPTIONS, store: memoryStore() })
  } finally {
    delete process.env.AWS_LAMBDA_FUNCTION_NAME
  }
})

test('keys at a URL are fetched once for all that need them, and again for an unknown kid once a minute', async () => {
  const keys = {}
  for (const kid of ['old', 'new']) keys[kid] = await generateKeyPair('ES256')
  const published = async (...kids) => ({
    keys: await Promise.all(kids.map(async (kid) => ({ ...(await exportJWK(keys[kid].publicKey)), kid }))),
  })
  let now = Date.now()
  let [fetched, response] = [0, await published('old')]
  const verifier = createVerifier({
    publicUrl: PUBLIC_URL,
    jwksUrl: 'https://service.example/site/jwks.json',
    clock: () => now,
    fetchKeys: async () => {
      fetched += 1
      if (response === null) throw new Error('unavailable')
      return JSON.stringify(response)
    },
  })
  const check = async (kid) => {
    const jwt = new SignJWT({ exp: Math.floor(now / 1000) + 100_000 }).setProtectedHeader({ alg: 'ES256', kid })
    return codeOf(verifier.verify(request({ 'Approov-Token': await jwt.sign(keys[kid].privateKey) })))
  }
  assert.deepEqual(await Promise.all([check('old'), check('old'), check('old')]), ['ok', 'ok', 'ok'])
  assert.equal(fetched, 1)
  assert.equal(await check('new'), 'token_unknown_key')
  response = await published('old', 'new')
  assert.equal(await check('new'), 'token_unknown_key')
  assert.equal(fetched, 1)
  now += 60_000
  assert.equal(await check('new'), 'ok')
  assert.equal(fetched, 2)
  response = null
  now += 23 * 3_600_000
  assert.equal(await check('old'), 'ok')
  now += 3_600_000
  assert.equal(await check('old'), 'keys_unavailable')
})

describe('with Redis', () => {
  let directory, server, socket
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'approov-redis-'))
    socket = join(directory, 'redis.sock')
    server = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--save', '', '--dir', directory])
    for await (const line of server.stdout) if (String(line).includes('ready to accept connections')) break
    server.stdout.resume()
  })
  after(async () => {
    server.kill()
    await once(server, 'exit')
    await rm(directory, { recursive: true })
  })

  test('a proof is good once at all servers that share it, whatever client they have', async () => {
    const [io, node] = [new Redis({ path: socket }), createClient({ socket: { path: socket } })]
    await node.connect()
    try {
      const verifiers = [io, node].map((client) => createVerifier({ ...OPTIONS, store: redisStore(client) }))
      for (let round = 0; round < 20; round++) {
        const { headers } = await session()
        const sent = await headers('POST', '/order')
        const first = verifiers[round % 2]
        assert.equal(await codeOf(first.verify(request(sent))), 'ok')
        for (const verifier of verifiers) assert.equal(await codeOf(verifier.verify(request(sent))), 'proof_replayed')
      }
      const keys = await node.keys('approov:replay:*')
      assert.equal(keys.filter((key) => !key.endsWith('{load}')).length, 20)
    } finally {
      io.disconnect()
      node.destroy()
    }
  })

  test('nothing is accepted while it is unavailable, and clients learn nothing of it', async () => {
    const refused = []
    const client = { call: async () => Promise.reject(new Error('connect ECONNREFUSED')) }
    const verifier = createVerifier({
      ...OPTIONS,
      store: redisStore(client),
      onRefused: (verdict) => refused.push(verdict),
    })
    const { headers } = await session()
    const verdict = await verifier.verify(request(await headers('POST', '/order')))
    assert.equal(verdict.status, 503)
    assert.equal(verdict.code, 'replay_store')
    assert.doesNotMatch(JSON.stringify({ ...verdict, log: '' }), /ECONNREFUSED/)
    assert.match(refused[0].log, /ECONNREFUSED/)
  })

  test('what Redis says that is no number is no acceptance', async () => {
    for (const response of ['OK', null, undefined, {}, 1.5]) {
      const verifier = createVerifier({ ...OPTIONS, store: redisStore({ call: async () => response }) })
      const { headers } = await session()
      const verdict = await codeOf(verifier.verify(request(await headers('POST', '/order'))))
      assert.equal(verdict, 'replay_store', String(response))
    }
  })
})

describe('the programs in docs/BACKENDS.md', () => {
  const directory = new URL('examples/', import.meta.url)
  const example = (name) => new URL(name, directory)
  const env = { PUBLIC_URL, APPROOV_SECRET: OPTIONS.secret, PORT: '0' }
  before(() => Object.assign(process.env, env))
  after(() => Object.keys(env).forEach((name) => delete process.env[name]))
  const order = async () => {
    const { headers } = await session()
    return { ...(await headers('POST', '/order', { body: '{"a":1}' })), 'Content-Type': 'application/json' }
  }
  const ORDERED = { ordered: { a: 1 }, from: '192.0.2.1' }

  test('are those that are tested here', async () => {
    const document = await readFile(new URL('../../../docs/BACKENDS.md', import.meta.url), 'utf8')
    const blocks = [...document.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code)
    const files = (await readdir(directory)).map((name) => readFile(example(name), 'utf8'))
    assert.deepEqual(blocks.sort(), (await Promise.all(files)).sort())
  })

  for (const name of ['express.mjs', 'fastify.mjs']) {
    test(`${name} serves a good request once`, async () => {
      const child = spawn(process.execPath, [example(name).pathname], { stdio: ['ignore', 'pipe', 'inherit'] })
      try {
        const [line] = await once(child.stdout, 'data')
        const address = String(line).match(/http:\S+/)[0]
        const sent = await order()
        const good = await send(address, '/order', sent, { body: '{"a":1}' })
        assert.deepEqual(JSON.parse(good.body), ORDERED)
        assert.equal((await send(address, '/order', sent, { body: '{"a":1}' })).status, 401)
      } finally {
        child.kill()
      }
    })
  }

  for (const [name, handlerOf] of [
    ['hono.mjs', (module) => module.default.fetch],
    ['worker.mjs', (module) => module.default.fetch],
    ['next.mjs', (module) => (request) => module.POST(request, { params: {} })],
  ]) {
    test(`${name} serves a good request once`, async () => {
      const handler = handlerOf(await import(example(name)))
      const sent = await order()
      const response = await handler(request(sent, { body: '{"a":1}' }))
      assert.deepEqual(await response.json(), ORDERED)
      assert.equal((await handler(request(sent, { body: '{"a":1}' }))).status, 401)
    })
  }
})
