// A page of another origin at backends that the packages for npm and PyPI protect, by the programs of docs/BACKENDS.md as they are
// there: with npm's dpop, with atproto's fetch, and with createFetch.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { calculateJwkThumbprint, SignJWT } from 'jose'

import { startProgram } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES, freePort } from '../harness/engines.mjs'
import { until } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

/** The bundler that makes the package. @type {typeof import('esbuild')} */
const { build } = createRequire(new URL('../../../xtask/package.json', import.meta.url))('esbuild')

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const guide = await readFile(here('../../../docs/BACKENDS.md'), 'utf8')
const section = /^## Pages of other origins\n(.*?)^## /ms.exec(guide)[1]

/** The programs, each with the option that demands nonces, how it is started, and how often a response tells that it runs. */
const BACKENDS = {
  Express: {
    program: /^```js\n(.*?)^```$/ms.exec(section)[1],
    nonces: "serverNonces: 'required', ",
    file: 'app.mjs',
    command: () => [process.execPath, 'app.mjs'],
  },
  FastAPI: {
    program: /^```python\n(.*?)^```$/ms.exec(section)[1],
    nonces: 'server_nonces="required", ',
    file: 'app.py',
    command: (port) => [
      process.env.PYTHON ?? 'python3',
      '-m',
      'uvicorn',
      'app:app',
      '--port',
      port,
      '--log-level=warning',
    ],
  },
}

/** What of a program is there for Approov: the lines that an open API would not have, or have without. */
const approovLines = (program) => program.split('\n').filter((line) => /approov|publicUrl|public_url/i.test(line))

/** A backend's program with or without nonces, on a port of its own. */
async function startBackend({ program, nonces, file, command }, { demandsNonces, secret, pages }) {
  assert.equal(program.split(nonces).length, 2, `the program demands nonces by ${nonces}`)
  const directory = await mkdtemp(join(tmpdir(), 'approov-backend-'))
  const remove = () => rm(directory, { recursive: true, force: true })
  try {
    await writeFile(join(directory, file), demandsNonces ? program : program.replace(nonces, ''))
    await symlink(here('../../../verify/npm/tests/node_modules'), join(directory, 'node_modules'))
    const port = String(await freePort())
    const url = `http://127.0.0.1:${port}`
    const env = { PUBLIC_URL: url, APPROOV_SECRET: secret, PAGE_ORIGIN: pages, PORT: port, PYTHONPATH: directory }
    const [executable, ...args] = command(port)
    // Each says in its own way that it listens; a shell says that it has started, and is the program from then on.
    const script = `cd "$0" && echo started && exec "$@"`
    const running = await startProgram(file, '/bin/sh', ['-c', script, directory, executable, ...args], {
      env,
      ready: (line) => line === 'started',
    })
    const stop = () => running.stop().then(remove)
    try {
      await until(`${file} responds`, () =>
        fetch(url).then(
          () => true,
          () => false,
        ),
      )
    } catch (error) {
      await stop()
      throw error
    }
    return { url, stop }
  } catch (error) {
    await remove()
    throw error
  }
}

for (const [name, { program }] of Object.entries(BACKENDS)) {
  test(`${name} is protected by at most five lines`, () => {
    const lines = approovLines(program)
    // A statement that goes on in the next line would be counted too low.
    for (const line of lines.filter((line) => /use\(|add_middleware\(|=/.test(line)))
      assert.equal(line.split(/[([{]/).length, line.split(/[)\]}]/).length, line)
    assert.ok(lines.length > 1 && lines.length <= 5, `${lines.length} lines:\n${lines.join('\n')}`)
  })
}

for (const engine of chosenEngines()) {
  describe(`a page of another origin in ${ENGINES[engine].title}`, () => {
    let world, directory
    const backends = {}
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'approov-clients-'))
      const bundle = join(directory, 'dpop-clients.js')
      await build({
        entryPoints: [here('../pages/dpop-clients.js')],
        external: ['/approov.js'],
        outfile: bundle,
        bundle: true,
        format: 'esm',
        logLevel: 'warning',
      })
      world = await startWorld(engine, { mounts: { '/dpop-clients.js': bundle } })
      for (const [name, backend] of Object.entries(BACKENDS)) {
        for (const demandsNonces of [true, false]) {
          backends[`${name} ${demandsNonces}`] = await startBackend(backend, {
            demandsNonces,
            secret: world.service.account.secret,
            pages: world.site.url,
          })
        }
      }
    })
    after(async () => {
      for (const { stop } of Object.values(backends)) await stop()
      await world?.stop()
      await rm(directory, { recursive: true, force: true })
    })

    /** A token as the service issues them, bound to a key that is not a session's: signed with the account's secret. */
    const tokenFor = async (jwk) =>
      new SignJWT({ ip: '192.0.2.1', embed: {}, cnf: { jkt: await calculateJwkThumbprint(jwk) } })
        .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
        .setExpirationTime('10m')
        .sign(Buffer.from(world.service.account.secret, 'base64'))

    for (const name of Object.keys(BACKENDS)) {
      for (const demandsNonces of [true, false]) {
        const kind = `${name} ${demandsNonces ? 'that demands its nonces' : 'without nonces'}`
        const backend = () => backends[`${name} ${demandsNonces}`]

        test(`${kind}: preflights pass, and the page can read refusals`, async () => {
          const preflight = (origin) =>
            fetch(`${backend().url}/order`, {
              method: 'OPTIONS',
              headers: {
                Origin: origin,
                'Access-Control-Request-Method': 'POST',
                'Access-Control-Request-Headers': 'approov-token,authorization,content-type,dpop',
              },
            })
          const allowed = await preflight(world.site.url)
          assert.equal(allowed.status, 204)
          assert.equal(allowed.headers.get('access-control-allow-origin'), world.site.url)
          const other = await preflight('https://evil.example')
          assert.equal(other.headers.get('access-control-allow-origin'), null)

          await world.freshPage()
          const refused = await world.run(async (url) => {
            // A header that only a preflight allows.
            const response = await fetch(url, {
              method: 'POST',
              headers: { 'content-type': 'application/json' },
              body: '{}',
            })
            const [challenge, nonce] = ['WWW-Authenticate', 'DPoP-Nonce'].map((name) => response.headers.get(name))
            return { status: response.status, challenge, nonce, code: (await response.json()).code }
          }, `${backend().url}/order`)
          assert.equal(refused.status, 401)
          assert.equal(refused.code, 'token_missing')
          assert.match(refused.challenge, /^DPoP /)
          if (demandsNonces) assert.ok(refused.nonce.length > 40)
          else assert.equal(refused.nonce, null)
        })

        for (const client of ['dpop', 'atproto', 'createFetch']) {
          test(`${kind} serves ${client}, and refuses what was altered or sent before`, async () => {
            await world.freshPage()
            const jwk = await world.run(
              async (client, options) => {
                const { CLIENTS, Wire } = await import(/** @type {any} */ ('/dpop-clients.js'))
                globalThis.wire = new Wire()
                globalThis.client = await CLIENTS[client](globalThis.wire, options)
                return globalThis.client.jwk
              },
              client,
              {
                origin: backend().url,
                settings: world.settings,
                // One of before the backend's secret was changed, say.
                nonce: demandsNonces ? 'a nonce that the backend did not give' : undefined,
              },
            )
            const { served, sent } = await world.run(
              async (url, token) => {
                const { client, wire } = /** @type {any} */ (globalThis)
                const served = []
                for (let size = 1; size <= 3; size += 1) {
                  const headers = { 'content-type': 'application/json' }
                  const response = await client.fetch(token, url, { method: 'POST', headers, body: `{"size":${size}}` })
                  served.push({
                    status: response.status,
                    body: await response.json(),
                    nonce: response.headers.get('DPoP-Nonce'),
                  })
                }
                return { served, sent: wire.sent }
              },
              `${backend().url}/order`,
              jwk ? await tokenFor(jwk) : null,
            )
            for (const [index, { status, body }] of served.entries()) {
              assert.equal(status, 200, JSON.stringify(body))
              assert.deepEqual(body.ordered, { size: index + 1 })
              assert.equal(body.from, jwk ? '192.0.2.1' : '127.0.0.1')
            }
            if (demandsNonces) {
              // The first is repeated with the nonce of its refusal; each other one has the latest nonce, and is sent once.
              assert.deepEqual(
                sent.map(({ status }) => status),
                [401, 200, 200, 200],
              )
              for (let index = 1; index < sent.length; index += 1) assert.equal(sent[index].nonce, sent[index - 1].next)
              assert.notEqual(sent[0].nonce, sent[1].nonce)
              // In three requests the nonces change once at most.
              const nonces = sent.slice(1).map(({ nonce }) => nonce)
              assert.ok(new Set(nonces).size < nonces.length, 'a nonce is accepted again')
              assert.ok(served.every(({ nonce }) => nonce.length > 40))
            } else {
              assert.deepEqual(
                sent.map(({ status }) => status),
                [200, 200, 200],
              )
            }

            const verdicts = await world.run(
              async (url, token) => {
                const { client, wire } = /** @type {any} */ (globalThis)
                wire.isKeeping = true
                const headers = { 'content-type': 'application/json' }
                await client.fetch(token, url, { method: 'POST', headers, body: '{"size":4}' })
                const kept = { method: 'POST', headers: wire.kept.headers, body: '{"size":4}' }
                const verdict = async (init) => {
                  const response = await fetch(url, init)
                  const { code, ordered } = await response.json()
                  const error = /error="(\w+)"/.exec(response.headers.get('WWW-Authenticate'))?.[1]
                  return [response.status, code ?? ordered, error]
                }
                return {
                  'altered body': await verdict({ ...kept, body: '{"size":5}' }),
                  'wrong method': await verdict({ ...kept, method: 'PUT' }),
                  'as it was': await verdict(kept),
                  again: await verdict(kept),
                }
              },
              `${backend().url}/order`,
              jwk ? await tokenFor(jwk) : null,
            )
            assert.deepEqual(verdicts, {
              'altered body': [401, 'message_mismatch', 'invalid_dpop_proof'],
              'wrong method': [401, 'proof_method', 'invalid_dpop_proof'],
              'as it was': [200, { size: 4 }, null],
              again: [401, 'proof_replayed', 'invalid_dpop_proof'],
            })
          })
        }
      }
    }
  })
}
