// server.mjs as a process, with requests over HTTP.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'

const PUBLIC_URL = 'https://api.example.com'
const secret = randomBytes(64)
let server, address

before(async () => {
  server = spawn(process.execPath, [new URL('server.mjs', import.meta.url).pathname], {
    env: { ...process.env, APPROOV_SECRET: secret.toString('base64'), PUBLIC_URL: `${PUBLIC_URL}/`, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  for await (const line of createInterface(server.stdout)) {
    address = line.replace('listening on ', '')
    break
  }
})
after(() => server.kill())

async function session() {
  const { publicKey, privateKey } = await generateKeyPair('ES256')
  const jwk = await exportJWK(publicKey)
  const cnf = { jkt: await calculateJwkThumbprint(jwk) }
  const token = await new SignJWT({ embed: {}, cnf })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setExpirationTime('2m')
    .sign(secret)
  const hash = (data) => createHash('sha256').update(data).digest('base64url')
  const proof = (htu, body, more = {}) =>
    new SignJWT({ jti: randomUUID(), htm: 'POST', htu, ath: hash(token), msgs: hash(body), ...more })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk })
      .setIssuedAt()
      .sign(privateKey)
  return { token, proof }
}

const post = (token, proof, body) =>
  fetch(`${address}/order?x=1`, { method: 'POST', headers: { 'Approov-Token': token, DPoP: proof }, body })

test('a good request gets its claims, and its proof is good once', async () => {
  const { token, proof } = await session()
  const made = await proof(`${PUBLIC_URL}/order`, 'two shapes')
  const response = await post(token, made, 'two shapes')
  assert.equal(response.status, 200)
  assert.equal((await response.json()).proof.htm, 'POST')
  const again = await post(token, made, 'two shapes')
  assert.equal(again.status, 401)
  assert.equal(again.headers.get('www-authenticate'), 'DPoP error="invalid_dpop_proof", algs="ES256"')
})

test('another body, another server and another token are refused', async () => {
  const [one, other] = [await session(), await session()]
  for (const [token, proof, body] of [
    [one.token, await one.proof(`${PUBLIC_URL}/order`, 'two'), 'three'],
    [one.token, await one.proof(`${address}/order`, 'two'), 'two'],
    [other.token, await one.proof(`${PUBLIC_URL}/order`, 'two'), 'two'],
  ]) {
    assert.equal((await post(token, proof, body)).status, 401)
  }
})

/** The status of a request whose target is sent as it is, which `fetch` would not do. */
async function statusOf(target, headers) {
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  const lines = Object.entries({ Host: 'api.example.com', 'Content-Length': 0, Connection: 'close', ...headers })
  socket.write(`POST ${target} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`)
  return Number((await text(socket)).split(' ')[1])
}

test('no target leads to another server, or to another path than it seems', async () => {
  const { token, proof } = await session()
  for (const [target, htu, status] of [
    ['/order', `${PUBLIC_URL}/order`, 200],
    ['/order?to=x', `${PUBLIC_URL}/order`, 200],
    ['.evil.example/order', `${PUBLIC_URL}.evil.example/order`, 401],
    ['pany/order', `${PUBLIC_URL}pany/order`, 401],
    [':8443/order', `${PUBLIC_URL}:8443/order`, 401],
    ['m://order', `${PUBLIC_URL}m://order`, 401],
    ['https://evil.example/order', 'https://evil.example/order', 401],
    [`${PUBLIC_URL}/order`, `${PUBLIC_URL}/order`, 401],
    ['//evil.example/order', 'https://evil.example/order', 401],
    ['//order', `${PUBLIC_URL}/order`, 401],
    ['/public/../order', `${PUBLIC_URL}/order`, 401],
    ['/public/%2e%2e/order', `${PUBLIC_URL}/order`, 401],
    ['*', `${PUBLIC_URL}*`, 401],
  ]) {
    const got = await statusOf(target, { 'Approov-Token': token, DPoP: await proof(htu, '') })
    // What Node's own parser refuses is refused, too.
    assert.ok(got === status || (status === 401 && got === 400), `${target} ${htu}: ${got}`)
  }
})

test('the token is taken from Authorization too, and the query is compared when the proof covers it', async () => {
  const { token, proof } = await session()
  const htq = createHash('sha256').update('to=alice').digest('base64url')
  const authorization = { Authorization: `DPoP ${token}` }
  for (const [target, headers, status] of [
    ['/order?to=alice', authorization, 200],
    ['/order?to=mallory', authorization, 401],
    ['/order?to=alice', { ...authorization, 'Approov-Token': token }, 401],
    ['/order?to=alice', { Authorization: `Bearer ${token}` }, 401],
  ]) {
    const DPoP = await proof(`${PUBLIC_URL}/order`, '', { htq })
    assert.equal(await statusOf(target, { ...headers, DPoP }), status, target)
  }
})

test('a server with an unusable public URL does not start', async () => {
  const env = { ...process.env, APPROOV_SECRET: secret.toString('base64'), PUBLIC_URL: 'api.example.com', PORT: '0' }
  const child = spawn(process.execPath, [new URL('server.mjs', import.meta.url).pathname], { env, stdio: 'pipe' })
  assert.match(await text(child.stderr), /"api\.example\.com" is not a URL such as https:/)
})

test('a body beyond the limit is refused', async () => {
  const { token, proof } = await session()
  const response = await post(token, await proof(`${PUBLIC_URL}/order`, ''), Buffer.alloc((1 << 20) + 1))
  assert.equal(response.status, 413)
})
