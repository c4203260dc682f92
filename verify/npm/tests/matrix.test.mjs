// Every backend and every case in one table: the same requests over HTTP to each framework of both packages, and to the gate. Tokens and
// proofs are jose's.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { serve } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import * as jose from 'jose'
import { approov as forExpress } from 'approov-verify/express'
import { approov as forFastify } from 'approov-verify/fastify'
import { approov as forHono } from 'approov-verify/hono'
import { approov as forNext } from 'approov-verify/next'

const PUBLIC_URL = 'https://api.example.com'
const SECRET = randomBytes(64)
const JWE_SECRET = randomBytes(32)
const account = await jose.generateKeyPair('ES256', { extractable: true })
const JWKS = { keys: [{ ...(await jose.exportJWK(account.publicKey)), kid: 'es-1', alg: 'ES256', use: 'sig' }] }

const OPTIONS = {
  publicUrl: PUBLIC_URL,
  secret: SECRET.toString('base64'),
  jwks: JWKS,
  jweSecret: JWE_SECRET.toString('base64'),
  proof: 'required',
}

const snake = (options) =>
  Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  )

async function listening(server) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const stop = () => (server.closeAllConnections(), server.close())
  return { address: `http://127.0.0.1:${server.address().port}`, stop }
}

/** A program that prints where it listens. */
async function program(command, args, env, read) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } })
  const ended = once(child, 'exit')
  const line = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line').then(([line]) => line),
    ended.then(([code]) => Promise.reject(new Error(`${command} ${args.join(' ')} ended with ${code}`))),
  ])
  return { address: read(line), stop: () => (child.kill(), ended) }
}

const python = (framework) => (options) =>
  program(
    process.env.PYTHON,
    [fileURLToPath(new URL('../../python/tests/matrix_server.py', import.meta.url)), framework],
    { MATRIX_OPTIONS: JSON.stringify(snake(options)) },
    (line) => line,
  )

const BACKENDS = {
  Express(options) {
    const app = express()
    app.use(forExpress(options))
    app.all('/order', (request, response) => response.send('ok'))
    return listening(createServer(app))
  },
  async Fastify(options) {
    const app = fastify()
    app.register(forFastify, options)
    app.register(async (inner) => {
      inner.route({ method: ['GET', 'POST'], url: '/order', handler: async () => 'ok' })
    })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    return { address, stop: () => app.close() }
  },
  async Hono(options) {
    const app = new Hono()
    app.use(forHono(options))
    app.all('/order', (c) => c.text('ok'))
    const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
    if (!server.listening) await once(server, 'listening')
    const stop = () => (server.closeAllConnections(), server.close())
    return { address: `http://127.0.0.1:${server.address().port}`, stop }
  },
  Next(options) {
    const handler = forNext(options)(async () => new Response('ok'))
    return listening(
      createServer(async (request, response) => {
        const given = new Request(new URL(request.url, PUBLIC_URL), {
          method: request.method,
          headers: Object.entries(request.headersDistinct).flatMap(([name, values]) =>
            values.map((value) => [name, value]),
          ),
          ...(request.method === 'GET' ? {} : { body: Readable.toWeb(request), duplex: 'half' }),
        })
        const { status, headers, body } = await handler(given, { params: {} })
        response.writeHead(status, [...headers].flat())
        if (body) for await (const chunk of body) response.write(chunk)
        response.end()
      }),
    )
  },
  FastAPI: python('fastapi'),
  Flask: python('flask'),
  Django: python('django'),
  async gate(options) {
    const directory = mkdtempSync(join(tmpdir(), 'approov-matrix-'))
    const file = join(directory, 'gate.toml')
    const { public_url: publicUrl, jwks, ...verify } = snake(options)
    writeFileSync(join(directory, 'jwks.json'), JSON.stringify(jwks))
    const lines = Object.entries(verify).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
    const own = `listen = "127.0.0.1:0"\npublic_urls = ["${publicUrl}"]\nbodies = "forwarded"\n`
    writeFileSync(file, `${own}[verify]\njwks_file = "${join(directory, 'jwks.json')}"\n${lines.join('')}`)
    const gate = await program(
      process.env.APPROOV_GATE,
      ['--json', '--quiet', '--config', file],
      {},
      (line) => JSON.parse(line).url,
    )
    return { ...gate, stop: () => (rmSync(directory, { recursive: true }), gate.stop()), asks: true }
  },
}

const hash = (data) => createHash('sha256').update(data).digest('base64url')

/** A session's key, tokens and proofs. */
async function session() {
  const { privateKey, publicKey } = await jose.generateKeyPair('ES256')
  const jwk = await jose.exportJWK(publicKey)
  const claims = { embed: {}, cnf: { jkt: await jose.calculateJwkThumbprint(jwk) }, ip: '192.0.2.1' }
  const token = (secret = SECRET, more = {}, exp = '2m', header = { alg: 'HS256', typ: 'JWT' }) =>
    new jose.SignJWT({ ...claims, ...more }).setProtectedHeader(header).setExpirationTime(exp).sign(secret)
  const proof = (token, { htm = 'POST', htu = `${PUBLIC_URL}/order`, body } = {}) =>
    new jose.SignJWT({
      jti: randomUUID(),
      htm,
      htu,
      ath: hash(token),
      ...(body === undefined ? {} : { msgs: hash(body) }),
    })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
      .setIssuedAt()
      .sign(privateKey)
  return { token, proof, claims }
}

/** The cases: what they send, and what a backend must say. `bound`: the token must be bound to Authorization. */
const pay = { pay: createHash('sha256').update('Bearer me').digest('base64') }
const unsigned = (claims) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'none', typ: 'JWT' })}.${part({ ...claims, exp: Math.floor(Date.now() / 1000) + 120 })}.`
}
const CASES = {
  valid: { verdict: 'ok' },
  expired: { token: ({ token }) => token(SECRET, {}, '-1m'), verdict: 'token_expired' },
  // As the service signs after a failed check: of the same shape, with a key that nobody has.
  'failed check': { token: ({ token }) => token(randomBytes(64)), verdict: 'token_signature' },
  'other secret': { token: ({ token }) => token(randomBytes(64)), verdict: 'token_signature' },
  none: { token: ({ claims }) => unsigned(claims), verdict: 'token_algorithm' },
  keyset: {
    token: ({ token }) => token(account.privateKey, {}, '2m', { alg: 'ES256', typ: 'JWT', kid: 'es-1' }),
    verdict: 'ok',
  },
  'keyset, unknown kid': {
    token: ({ token }) => token(account.privateKey, {}, '2m', { alg: 'ES256', typ: 'JWT', kid: 'es-2' }),
    verdict: 'token_unknown_key',
  },
  JWE: {
    token: async ({ token }) =>
      new jose.CompactEncrypt(new TextEncoder().encode(await token()))
        .setProtectedHeader({ alg: 'A256GCMKW', enc: 'A256GCM', cty: 'JWT' })
        .encrypt(JWE_SECRET),
    verdict: 'ok',
  },
  'JWE, other secret': {
    token: async ({ token }) =>
      new jose.CompactEncrypt(new TextEncoder().encode(await token()))
        .setProtectedHeader({ alg: 'A256GCMKW', enc: 'A256GCM', cty: 'JWT' })
        .encrypt(randomBytes(32)),
    verdict: 'token_decryption',
  },
  'binding right': {
    bound: true,
    token: ({ token }) => token(SECRET, pay),
    more: { Authorization: 'Bearer me' },
    verdict: 'ok',
  },
  'binding wrong': {
    bound: true,
    token: ({ token }) => token(SECRET, pay),
    more: { Authorization: 'Bearer you' },
    verdict: 'binding_mismatch',
  },
  'binding absent': { bound: true, token: ({ token }) => token(SECRET, pay), verdict: 'binding_data_missing' },
  'token not bound': { bound: true, more: { Authorization: 'Bearer me' }, verdict: 'binding_missing' },
  'no token': { without: 'Approov-Token', verdict: 'token_missing' },
  'no proof': { without: 'DPoP', verdict: 'proof_missing' },
  'proof for other method': { proof: { htm: 'GET' }, verdict: 'proof_method' },
  'proof for other path': { proof: { htu: `${PUBLIC_URL}/other` }, verdict: 'proof_url' },
  'proof for other host': { proof: { htu: 'https://evil.example/order' }, verdict: 'proof_url' },
  replay: { twice: true, verdict: 'proof_replayed' },
  'body as signed': { proof: { body: 'amount=1' }, body: 'amount=1', verdict: 'ok' },
  'body altered': { proof: { body: 'amount=1' }, body: 'amount=9', verdict: 'message_mismatch' },
}

async function verdict({ address, asks }, given) {
  const made = await session()
  const token = await (given.token ?? (({ token }) => token()))(made)
  const proof = await made.proof(token, given.proof)
  const headers = { 'Approov-Token': token, DPoP: proof, 'Content-Type': 'text/plain', ...given.more }
  if (given.without) delete headers[given.without]
  if (asks) Object.assign(headers, { 'X-Forwarded-Method': 'POST', 'X-Forwarded-Uri': '/order' })
  const request = () =>
    fetch(`${address}${asks ? '/forward-auth' : '/order'}`, { method: 'POST', headers, body: given.body ?? '' })
  if (given.twice) assert.equal((await request()).status, 200)
  const response = await request()
  if (response.status === 200) return 'ok'
  assert.equal(response.status, 401)
  assert.match(response.headers.get('WWW-Authenticate'), /^DPoP /)
  return (await response.json()).code
}

const skip = process.env.PYTHON && process.env.APPROOV_GATE ? false : 'PYTHON or APPROOV_GATE is not set'
const servers = {}

before(async () => {
  if (skip) return
  execFileSync(process.env.PYTHON, ['-c', 'import approov_verify'])
  const bound = { ...OPTIONS, boundToHeader: 'authorization' }
  await Promise.all(
    Object.entries(BACKENDS).map(async ([name, start]) => {
      servers[name] = { plain: await start(OPTIONS), bound: await start(bound) }
    }),
  )
})
after(() => Promise.all(Object.values(servers).flatMap(({ plain, bound }) => [plain.stop(), bound.stop()])))

test('every backend gives the same verdict in every case', { skip }, async (t) => {
  const names = Object.keys(BACKENDS)
  const table = [`| case | ${names.join(' | ')} |`, `|---|${names.map(() => '---|').join('')}`]
  const differing = []
  for (const [what, given] of Object.entries(CASES)) {
    const said = await Promise.all(names.map((name) => verdict(servers[name][given.bound ? 'bound' : 'plain'], given)))
    table.push(`| ${what} | ${said.join(' | ')} |`)
    said.forEach((code, index) => code !== given.verdict && differing.push(`${names[index]}, ${what}: ${code}`))
  }
  for (const line of table) t.diagnostic(line)
  assert.deepEqual(differing, [])
  assert.equal(table.length, Object.keys(CASES).length + 2)
})
