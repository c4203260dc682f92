// server.mjs as a process, with requests over HTTP.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import { after, before, test } from 'node:test'
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'

const PUBLIC_URL = 'https://api.example.com'
const secret = randomBytes(64)
let server, address

before(async () => {
  server = spawn(process.execPath, [new URL('server.mjs', import.meta.url).pathname], {
    env: { ...process.env, APPROOV_SECRET: secret.toString('base64'), PUBLIC_URL, PORT: '0' },
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
  const proof = (htu, body) =>
    new SignJWT({ jti: randomUUID(), htm: 'POST', htu, ath: hash(token), msgs: hash(body) })
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

test('a body beyond the limit is refused', async () => {
  const { token, proof } = await session()
  const response = await post(token, await proof(`${PUBLIC_URL}/order`, ''), Buffer.alloc((1 << 20) + 1))
  assert.equal(response.status, 413)
})
