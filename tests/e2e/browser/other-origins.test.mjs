// Pages that call backends on other origins, which demand a nonce of their own: with our `createFetch`, with atproto's wrapper of fetch,
// and with npm dpop and a loop by hand. The backends are an Express and a FastAPI app that the packages protect.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { SignJWT } from 'jose'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

/** @type {typeof import('esbuild')} */
const { build } = createRequire(new URL('../../../xtask/package.json', import.meta.url))('esbuild')

const file = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))
const BACKENDS = {
  Express: [process.execPath, file('verify/npm/tests/pages_app.mjs')],
  FastAPI: [process.env.PYTHON ?? 'python3', file('verify/python/tests/pages_app.py')],
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  server.close()
  return port
}

async function startBackend([program, script], secret, pages) {
  const url = `http://127.0.0.1:${await freePort()}`
  const child = spawn(program, [script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, PUBLIC_URL: url, APPROOV_SECRET: secret, PAGES: pages },
  })
  const ended = once(child, 'exit')
  const failed = ended.then(([code]) => Promise.reject(new Error(`${script} ended with ${code}`)))
  await Promise.race([once(createInterface({ input: child.stdout }), 'line'), failed])
  for (let tries = 0; ; tries += 1) {
    try {
      await fetch(url)
      break
    } catch (error) {
      if (tries === 100) throw error
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  failed.catch(() => {})
  return { url, stop: () => (child.kill(), ended) }
}

for (const engine of chosenEngines()) {
  describe(`a page and a backend on another origin in ${ENGINES[engine].title}`, () => {
    let world, directory
    const backends = {}
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'approov-clients-'))
      const clients = join(directory, 'clients.js')
      await build({
        entryPoints: [file('tests/e2e/pages/dpop-clients.js')],
        bundle: true,
        format: 'esm',
        outfile: clients,
        logLevel: 'error',
      })
      /** A token for the key of another client, as the service signs one for a session's. */
      const issue = async ({ url }) => {
        const jkt = new URL(url, 'http://site').searchParams.get('jkt')
        const secret = Buffer.from(world.service.account.secret, 'base64')
        const token = await new SignJWT({ embed: {}, cnf: { jkt }, ip: '192.0.2.1' })
          .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
          .setExpirationTime('5m')
          .sign(secret)
        return { token }
      }
      world = await startWorld(engine, { routes: { '/issue': issue }, mounts: { '/clients.js': clients } })
      const { secret } = world.service.account
      const start = async ([name, command]) => (backends[name] = await startBackend(command, secret, world.site.url))
      await Promise.all(Object.entries(BACKENDS).map(start))
    })
    after(async () => {
      await Promise.all(Object.values(backends).map(({ stop }) => stop()))
      await world?.stop()
      await rm(directory, { recursive: true, force: true })
    })

    for (const name of Object.keys(BACKENDS)) {
      test(`createFetch and ${name}`, async () => {
        await world.freshPage()
        const seen = await world.run(
          async (settings, url) => {
            const { Approov } = await import('/approov.js')
            const { passCheck, sessionOptions } = await import('/flow.js')
            const sent = []
            const apiFetch = Approov.createFetch({
              origins: [url],
              api: settings.api,
              session: sessionOptions(settings, 'recaptcha'),
              renew: () => passCheck(settings, 'recaptcha'),
              fetch: async (request) => {
                const response = await fetch(request)
                sent.push(response.status)
                return response
              },
            })
            const order = async () => {
              const body = JSON.stringify({ shape: 'circle' })
              const headers = { 'Content-Type': 'application/json' }
              const response = await apiFetch(`${url}/order`, { method: 'POST', headers, body })
              return [response.status, await response.json()]
            }
            return { answers: [await order(), await order(), await order()], sent }
          },
          world.settings,
          backends[name].url,
        )
        for (const [status, body] of seen.answers) {
          assert.equal(status, 200, JSON.stringify(body))
          assert.deepEqual(body, { ordered: { shape: 'circle' }, from: '127.0.0.1' })
        }
        // The first is told the nonce. The others have it.
        assert.deepEqual(seen.sent, [401, 200, 200, 200])
      })

      test(`atproto's wrapper of fetch and ${name}`, async () => {
        await world.freshPage()
        const seen = await world.run(async (url) => {
          const { WebcryptoKey, dpopFetchWrapper } = await import('/clients.js')
          const key = await WebcryptoKey.generate(['ES256'])
          const { kty, crv, x, y } = /** @type {any} */ (key.bareJwk)
          const text = new TextEncoder().encode(JSON.stringify({ crv, kty, x, y }))
          const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', text))
          const jkt = btoa(String.fromCharCode(...digest))
            .replaceAll('+', '-')
            .replaceAll('/', '_')
            .replace(/=+$/, '')
          const { token } = await (await fetch(`/issue?jkt=${jkt}`)).json()
          const [nonces, sent] = [new Map(), []]
          const dpopFetch = dpopFetchWrapper({
            key,
            supportedAlgs: ['ES256'],
            isAuthServer: false,
            nonces: {
              get: async (origin) => nonces.get(origin),
              set: async (origin, nonce) => void nonces.set(origin, nonce),
              del: async (origin) => void nonces.delete(origin),
            },
            fetch: async (input, init) => {
              const response = await fetch(input, init)
              sent.push(response.status)
              return response
            },
          })
          const order = async () => {
            const headers = { Authorization: `DPoP ${token}`, 'Content-Type': 'application/json' }
            const response = await dpopFetch(`${url}/order`, { method: 'POST', headers, body: '{"shape":"circle"}' })
            return response.status
          }
          return { statuses: [await order(), await order(), await order()], sent, nonces: nonces.size }
        }, backends[name].url)
        assert.deepEqual(seen, { statuses: [200, 200, 200], sent: [401, 200, 200, 200], nonces: 1 })
      })

      test(`npm dpop and ${name}: what passes, and what a page is told of what does not`, async () => {
        await world.freshPage()
        const seen = await world.run(async (url) => {
          const { generateProof } = await import('/clients.js')
          const makeKey = () => crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
          const keys = /** @type {CryptoKeyPair} */ (await makeKey())
          const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', keys.publicKey)
          const hash = async (text) => {
            const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
            return btoa(String.fromCharCode(...digest))
              .replaceAll('+', '-')
              .replaceAll('/', '_')
              .replace(/=+$/, '')
          }
          const jkt = await hash(JSON.stringify({ crv, kty, x, y }))
          const { token } = await (await fetch(`/issue?jkt=${jkt}`)).json()
          const body = '{"shape":"circle"}'
          let nonce
          const prove = ({ method = 'POST', path = '/order', by = keys, more = undefined } = {}) =>
            generateProof(/** @type {any} */ (by), url + path, method, nonce, token, more)
          const send = async (proof, sent = body) => {
            const headers = { 'Approov-Token': token, DPoP: proof, 'Content-Type': 'application/json' }
            const response = await fetch(`${url}/order`, { method: 'POST', headers, body: sent })
            nonce = response.headers.get('DPoP-Nonce') ?? nonce
            const challenge = /error="(\w+)"/.exec(response.headers.get('WWW-Authenticate') ?? '')?.[1]
            return [response.status, challenge ?? (await response.json()).from]
          }
          const told = await send(await prove())
          const proof = await prove()
          const other = /** @type {CryptoKeyPair} */ (await makeKey())
          const signed = { more: { msgs: await hash(body) } }
          return {
            told,
            passed: await send(proof),
            replayed: await send(proof),
            again: await send(await prove()),
            signed: await send(await prove(signed)),
            altered: await send(await prove(signed), '{"shape":"square"}'),
            method: await send(await prove({ method: 'GET' })),
            path: await send(await prove({ path: '/other' })),
            thief: await send(await prove({ by: other })),
          }
        }, backends[name].url)
        const refused = [401, 'invalid_dpop_proof']
        assert.deepEqual(seen, {
          told: [401, 'use_dpop_nonce'],
          passed: [200, '192.0.2.1'],
          replayed: refused,
          again: [200, '192.0.2.1'],
          signed: [200, '192.0.2.1'],
          altered: refused,
          method: refused,
          path: refused,
          thief: refused,
        })
      })
    }

    test('the apps are protected in at most five lines', async () => {
      const { readFile } = await import('node:fs/promises')
      for (const [, script] of Object.values(BACKENDS)) {
        const lines = (await readFile(script, 'utf8'))
          .split('\n')
          .filter((line) => /approov/i.test(line) && !/^\s*(\/\/|""")/.test(line))
        assert.ok(lines.length > 1 && lines.length <= 6, lines.join('\n'))
      }
    })
  })
}
