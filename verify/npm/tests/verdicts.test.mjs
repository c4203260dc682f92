// The table of verdicts: each middleware gets the same requests, by HTTP, and has to come to the same verdict. The table is printed.
// Needs what `cargo xtask test interop` builds: PYTHON with the wheel, APPROOV_VERDICTS_AXUM, APPROOV_GATE, APPROOV_WEB_SERVICE.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import {
  calculateJwkThumbprint,
  CompactEncrypt,
  exportJWK,
  exportSPKI,
  generateKeyPair,
  SignJWT,
  UnsecuredJWT,
} from 'jose'
import { PUBLIC_URL, send } from './support.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const node = (app) => [process.execPath, here('verdicts/apps.mjs'), app]
const python = (app) => [process.env.PYTHON ?? 'python3', here('../../python/tests/verdicts/apps.py'), app]

/** What starts each backend, with its options in APPROOV_OPTIONS. */
const BACKENDS = {
  Express: node('express'),
  Fastify: node('fastify'),
  Hono: node('hono'),
  Next: node('next'),
  FastAPI: python('fastapi'),
  Django: python('django'),
  Flask: python('flask'),
  axum: [process.env.APPROOV_VERDICTS_AXUM],
  gate: [process.env.APPROOV_GATE, '--json', '--quiet', '--config'],
}

const hash = (data) => createHash('sha256').update(data).digest('base64url')
const BODY = '{"shapes":["circle","é"]}'
const OTHER_BODY = BODY.replace('circle', 'square')
const AUTHORIZATION = 'Bearer alice'

const otherSecret = randomBytes(64)
const jweSecret = randomBytes(32)
const otherJweSecret = randomBytes(32)
const keys = {
  es: await generateKeyPair('ES256', { extractable: true }),
  rs: await generateKeyPair('RS256', { extractable: true }),
  stranger: await generateKeyPair('ES256'),
}
const jwks = {
  keys: [
    { ...(await exportJWK(keys.es.publicKey)), kid: 'es' },
    { ...(await exportJWK(keys.rs.publicKey)), kid: 'rs', alg: 'RS256' },
  ],
}
/** A session of a browser: a key, and proofs by it. */
const session = await newSession()
const stranger = await newSession()

async function newSession() {
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  const jwk = await exportJWK(publicKey)
  const proof = ({ header, ...claims }) =>
    new SignJWT({ jti: randomUUID(), iat: Math.floor(Date.now() / 1000), ...claims })
      .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk, ...header })
      .sign(privateKey)
  return { jkt: await calculateJwkThumbprint(jwk), proof }
}

/** The account's secret, which is the running service's; what started, to be ended. */
let secret, service
const started = []

/** The gate has its options in a file. It is asked as a gateway asks that sends bodies. */
const directory = mkdtempSync(join(tmpdir(), 'approov-verdicts-'))
function gateConfiguration(name, { public_url: publicUrl, jwks, ...verify }) {
  const file = (ending, text) => {
    const path = join(directory, `${name}.${ending}`)
    writeFileSync(path, text)
    return path
  }
  const lines = Object.entries({ ...verify, ...(jwks && { jwks_file: file('json', JSON.stringify(jwks)) }) })
  const own = { listen: '127.0.0.1:0', public_urls: [publicUrl], bodies: 'forwarded' }
  const toml = (entries) => entries.map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`).join('')
  return file('toml', `${toml(Object.entries(own))}[verify]\n${toml(lines)}`)
}

/** Starts a program, and gives what `ready` finds in one of its lines. */
async function startProgram([program, ...args], env, ready) {
  assert.ok(program, 'a program is not named: start this by cargo xtask test interop')
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } })
  started.push(child)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`${[program, ...args].join(' ')} ended with ${code}`)))
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = ready(line)
      if (found) resolve(found)
    })
  })
}

/** The token of a check at the running service, by its simulated hCaptcha. */
async function serviceToken(outcome) {
  const htu = `${service.url}/attest`
  let nonce
  const call = async (method, body) => {
    const DPoP = await session.proof({ htm: method, htu, ...(nonce && { nonce }) })
    const response = await fetch(htu, { method, headers: { DPoP }, body })
    nonce = response.headers.get('DPoP-Nonce')
    return response
  }
  assert.equal((await call('GET')).status, 204)
  const granted = await call(
    'POST',
    new URLSearchParams({
      'approov-site-key': service.site_key,
      'hcaptcha-site-key': service.hcaptcha_site_key,
      'hcaptcha-token': `sim-${outcome}-${randomUUID()}`,
      api: '127.0.0.1',
    }),
  )
  assert.equal(granted.status, 200)
  return (await granted.json()).tokens['127.0.0.1']
}

const claimsOf = (more) => ({
  exp: Math.floor(Date.now() / 1000) + 120,
  ip: '192.0.2.1',
  embed: {},
  cnf: { jkt: session.jkt },
  ...more,
})
const token = (claims, { alg = 'HS256', key = Buffer.from(secret, 'base64'), ...header } = {}) =>
  new SignJWT(claimsOf(claims)).setProtectedHeader({ alg, typ: 'JWT', ...header }).sign(key)
const encrypted = (text, key = jweSecret) =>
  new CompactEncrypt(new TextEncoder().encode(text))
    .setProtectedHeader({ alg: 'A256GCMKW', enc: 'A256GCM', cty: 'JWT' })
    .encrypt(key)
/** jose itself does not sign with the text of a public key. */
function confused(key) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const input = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(claimsOf())}`
  return `${input}.${createHmac('sha256', key).update(input).digest('base64url')}`
}
const bound = (data) => ({ pay: createHash('sha256').update(data).digest('base64') })

/** Servers of the Fetch API resolve targets before anybody sees them: then the handler is where the proof leads, too. */
const RESOLVED_BEFORE = { Hono: '200', Next: '200' }

/**
 * The cases: the configuration of the backend, the verdict, and what differs from a good request: its `token`, the `proof`'s
 * claims, who `signs` it, `headers`, `method`, `target`, `body`, and the verdict on the same request the `first` time. What is
 * undefined is left out. `own`: the verdicts of backends for which it is another.
 *
 * @type {[name: string, config: 'secret' | 'keyset' | 'bound', verdict: string, change?: () => any, own?: object][]}
 */
const CASES = [
  ['valid', 'secret', '200'],
  ['valid, of the service', 'secret', '200', async () => ({ token: await serviceToken('pass') })],
  [
    'failed check, of the service',
    'secret',
    '401 token_signature',
    async () => ({ token: await serviceToken('fail') }),
  ],
  ['no token', 'secret', '401 token_missing', () => ({ headers: { 'Approov-Token': undefined } })],
  [
    'expired',
    'secret',
    '401 token_expired',
    async () => ({ token: await token({ exp: Math.floor(Date.now() / 1000) - 60 }) }),
  ],
  ['other secret', 'secret', '401 token_signature', async () => ({ token: await token({}, { key: otherSecret }) })],
  ['alg none', 'secret', '401 token_algorithm', () => ({ token: new UnsecuredJWT(claimsOf()).encode() })],
  ['debug token', 'secret', '401 token_debug', async () => ({ token: await token({ embed: { 'debug:x': {} } }) })],
  ['JWE', 'secret', '200', async () => ({ token: await encrypted(await token()) })],
  [
    'JWE, other encryption secret',
    'secret',
    '401 token_decryption',
    async () => ({ token: await encrypted(await token(), otherJweSecret) }),
  ],
  [
    'JWE, other signing secret',
    'secret',
    '401 token_signature',
    async () => ({ token: await encrypted(await token({}, { key: otherSecret })) }),
  ],
  [
    'keyset, ES256',
    'keyset',
    '200',
    async () => ({ token: await token({}, { alg: 'ES256', kid: 'es', key: keys.es.privateKey }) }),
  ],
  [
    'keyset, RS256',
    'keyset',
    '200',
    async () => ({ token: await token({}, { alg: 'RS256', kid: 'rs', key: keys.rs.privateKey }) }),
  ],
  [
    'keyset, unknown kid',
    'keyset',
    '401 token_unknown_key',
    async () => ({ token: await token({}, { alg: 'ES256', kid: 'other', key: keys.es.privateKey }) }),
  ],
  [
    "keyset, a stranger's key",
    'keyset',
    '401 token_signature',
    async () => ({ token: await token({}, { alg: 'ES256', kid: 'es', key: keys.stranger.privateKey }) }),
  ],
  [
    'keyset, HS256 by the public key',
    'keyset',
    '401 token_algorithm',
    async () => ({ token: confused(await exportSPKI(keys.rs.publicKey)) }),
  ],
  ['binding right', 'bound', '200', async () => ({ token: await token(bound(AUTHORIZATION)) })],
  ['binding wrong', 'bound', '401 binding_mismatch', async () => ({ token: await token(bound('Bearer bob')) })],
  ['binding absent from the token', 'bound', '401 binding_missing'],
  [
    'binding absent from the request',
    'bound',
    '401 binding_data_missing',
    async () => ({ token: await token(bound(AUTHORIZATION)), headers: { Authorization: undefined } }),
  ],
  ['no proof', 'secret', '401 proof_missing', () => ({ headers: { DPoP: undefined } })],
  ['proof for other method', 'secret', '401 proof_method', () => ({ proof: { htm: 'PUT' } })],
  ['request of other method', 'secret', '401 proof_method', () => ({ method: 'PUT' })],
  ['proof for other path', 'secret', '401 proof_url', () => ({ proof: { htu: `${PUBLIC_URL}/orders` } })],
  ['request to other path', 'secret', '401 proof_url', () => ({ target: '/orders' })],
  ['path with dot segments', 'secret', '401 proof_url', () => ({ target: '/public/%2e%2e/order' }), RESOLVED_BEFORE],
  ['proof for other host', 'secret', '401 proof_url', () => ({ proof: { htu: 'https://evil.example/order' } })],
  [
    'proof for other host, which Host names',
    'secret',
    '401 proof_url',
    () => ({
      proof: { htu: 'https://evil.example/order' },
      headers: { Host: 'evil.example', 'X-Forwarded-Host': 'evil.example', 'X-Forwarded-Proto': 'https' },
    }),
  ],
  ['proof for other token', 'secret', '401 proof_token_hash', () => ({ proof: { ath: hash('other') } })],
  ['proof by other key', 'secret', '401 proof_key_mismatch', () => ({ signs: stranger })],
  [
    'proof from long ago',
    'secret',
    '401 proof_too_old',
    () => ({ proof: { iat: Math.floor(Date.now() / 1000) - 600 } }),
  ],
  ['proof for other query', 'secret', '401 query_mismatch', () => ({ proof: { htq: hash('to=alice') } })],
  ['replay', 'secret', '401 proof_replayed', () => ({ first: '200' })],
  ['body altered', 'secret', '401 message_mismatch', () => ({ body: OTHER_BODY })],
  ['body not covered by the proof', 'secret', '200', () => ({ proof: { msgs: undefined } })],
]

/** The `error` of `WWW-Authenticate` for a code; none for a request without a token. */
function challengeOf(code) {
  if (code === 'token_missing') return undefined
  return /^(token|binding|key_binding)_/.test(code) ? 'invalid_token' : 'invalid_dpop_proof'
}

/** Sends one request, and gives the verdict in words. */
async function verdictOf(address, { headers, method, target, body }, isGate) {
  const asked = { 'X-Forwarded-Method': method, 'X-Forwarded-Uri': target, ...headers }
  const response = isGate
    ? await send(address, '/forward-auth', asked, { method: 'GET', body })
    : await send(address, target, headers, { method, body })
  if (isGate && response.status === 200) {
    assert.match(response.head, /^approov-verified: proof$/im)
    return '200'
  }
  if (response.status === 200) {
    assert.deepEqual(JSON.parse(response.body).ordered, JSON.parse(BODY), 'what the handler got')
    return '200'
  }
  const { code } = JSON.parse(response.body)
  const [, challenge] = /^www-authenticate: (DPoP .*)$/im.exec(response.head) ?? []
  assert.ok(challenge, `${response.status} ${code} has a challenge`)
  assert.equal(/error="(\w+)"/.exec(challenge)?.[1], challengeOf(code), `the challenge of ${code}`)
  return `${response.status} ${code}`
}

async function requestOf(change) {
  const { method = 'POST', target = '/order?to=bob', body = BODY, signs = session } = change
  const sent = change.token ?? (await token())
  const htu = `${PUBLIC_URL}/order`
  const proof = { htm: 'POST', htu, ath: hash(sent), msgs: hash(BODY), ...change.proof }
  const headers = {
    'Content-Type': 'application/json',
    Authorization: AUTHORIZATION,
    'Approov-Token': sent,
    DPoP: await signs.proof(proof),
    ...change.headers,
  }
  const given = Object.entries(headers).filter(([, value]) => value !== undefined)
  return { headers: Object.fromEntries(given), method, target, body }
}

describe('verdicts by HTTP', () => {
  const addresses = {}
  /** The lines of the table. */
  const table = []
  before(async () => {
    const serve = [process.env.APPROOV_WEB_SERVICE, 'serve', '--dev', '--json', '--quiet', '--listen', '127.0.0.1:0']
    service = await startProgram(serve, {}, (line) => line.startsWith('{') && JSON.parse(line))
    secret = service.secret
    const configurations = {
      secret: { secret, jwe_secret: jweSecret.toString('base64url') },
      keyset: { jwks },
      bound: { secret, bound_to_header: 'Authorization' },
    }
    for (const [config, options] of Object.entries(configurations)) {
      const env = { APPROOV_OPTIONS: JSON.stringify({ public_url: PUBLIC_URL, ...options }) }
      const gate = gateConfiguration(config, { public_url: PUBLIC_URL, ...options })
      const entries = Object.entries(BACKENDS).map(async ([backend, command]) => [
        backend,
        backend === 'gate'
          ? await startProgram([...command, gate], {}, (line) => line.startsWith('{') && JSON.parse(line).url)
          : await startProgram(command, env, (line) => /^listening on (http:\/\/\S+)/.exec(line)?.[1]),
      ])
      addresses[config] = Object.fromEntries(await Promise.all(entries))
    }
  })
  after(() => {
    for (const child of started) child.kill()
    rmSync(directory, { recursive: true })
    const names = Object.keys(BACKENDS)
    const line = (cells) => `| ${cells.join(' | ')} |`
    console.log([line(['case', ...names]), line(['', ...names].map(() => '---')), ...table].join('\n'))
  })

  for (const [name, config, expected, change = () => ({}), own = {}] of CASES) {
    test(`${name}: ${expected}, by each backend`, async () => {
      const verdicts = {}
      for (const [backend, address] of Object.entries(addresses[config])) {
        const changed = await change()
        const request = await requestOf(changed)
        if (changed.first)
          assert.equal(
            await verdictOf(address, request, backend === 'gate'),
            changed.first,
            `${backend}, the first time`,
          )
        verdicts[backend] = await verdictOf(address, request, backend === 'gate')
      }
      table.push(`| ${[name, ...Object.values(verdicts)].join(' | ')} |`)
      assert.deepEqual(verdicts, {
        ...Object.fromEntries(Object.keys(BACKENDS).map((backend) => [backend, expected])),
        ...own,
      })
    })
  }
})
