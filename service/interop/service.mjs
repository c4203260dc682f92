// Starts the service's binary for these tests, and makes configurations with its command line.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { createInterface } from 'node:readline'
import * as jose from 'jose'

const binary =
  process.env.APPROOV_WEB_SERVICE ?? fileURLToPath(new URL('../../target/debug/approov-web-service', import.meta.url))

/** Runs a command of the configuration's command line; gives what it says. */
export function configure(file, ...args) {
  return execFileSync(binary, [...args, '-config', file], { encoding: 'utf8' }).trim()
}

/** Starts `serve` with these arguments; gives what it announces, and `stop`. */
export async function start(...args) {
  const child = spawn(binary, ['serve', '--json', '--quiet', '--listen', '127.0.0.1:0', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const line = await Promise.race([
    new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve)),
    ended.then((code) => Promise.reject(new Error(`the service ended with code ${code}`))),
    new Promise((_, reject) => child.once('error', reject)),
  ])
  return {
    ...JSON.parse(line),
    stop: () => {
      child.kill()
      return ended
    },
  }
}

/** Where browsers find the services of these tests. */
export const PUBLIC = 'https://web.example.com'

/** A session whose key and proofs are jose's. */
export async function session(service) {
  const { publicKey, privateKey } = await jose.generateKeyPair('ES256', { extractable: true })
  const { kty, crv, x, y } = await jose.exportJWK(publicKey)
  const jwk = { kty, crv, x, y }
  const htu = `${PUBLIC}/attest`
  let nonce
  const call = async (method, params) => {
    const proof = await new jose.SignJWT({ htm: method, htu, jti: randomUUID(), ...(nonce && { nonce }) })
      .setProtectedHeader({ typ: 'dpop+jwt', alg: 'ES256', jwk })
      .setIssuedAt()
      .sign(privateKey)
    const response = await fetch(`${service}/attest`, {
      method,
      headers: { DPoP: proof },
      body: params && new URLSearchParams(params),
    })
    nonce = response.headers.get('DPoP-Nonce')
    return response
  }
  assert.equal((await call('GET')).status, 204)
  return {
    thumbprint: await jose.calculateJwkThumbprint(jwk),
    nonce: () => nonce,
    attest: (params) => call('POST', params),
  }
}
