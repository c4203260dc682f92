// How the package loads: in pages, workers and service workers, from what it is given, where things are missing, and after a trap.
import assert from 'node:assert/strict'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { startWorld, unpackTarball } from '../harness/world.mjs'

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/
/** The response of hCaptcha's public test pair, which always passes. */
const PASSED = '10000000-aaaa-bbbb-cccc-000000000001'

for (const engine of chosenEngines()) {
  describe(`loading in ${ENGINES[engine].title}`, () => {
    let world
    let directory
    let visit
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'approov-untyped-'))
      const unpacked = await unpackTarball()
      await copyFile(join(unpacked.path, 'approov_bg.wasm'), join(directory, 'untyped.bin'))
      await unpacked.remove()
      world = await startWorld(engine, {
        routes: { '/module.html': moduleScript },
        mounts: {
          '/untyped.bin': join(directory, 'untyped.bin'),
          '/alone/index.js': 'index.js',
          '/alone/errors.js': 'errors.js',
        },
      })
      const { approovHost, approovSiteKey, keys, api } = world.settings
      visit = {
        api,
        session: { approovHost, approovSiteKey, ...keys.hcaptcha },
        result: { hcaptchaToken: PASSED, timeout: HANG },
      }
    })
    after(async () => {
      await world?.stop()
      await rm(directory, { recursive: true, force: true })
    })

    test('a script element of type module gets a token', async () => {
      await world.webdriver.get(`${world.site.url}/module.html#${encodeURIComponent(JSON.stringify(visit))}`)
      await world.webdriver.wait(() => world.webdriver.executeScript('return document.title.startsWith("ey")'), HANG)
      assert.match(await world.webdriver.getTitle(), TOKEN)
    })

    for (const entry of ['approov.js', 'index.js', 'node.js']) {
      test(`a module worker gets a token with ${entry}`, async () => {
        await world.freshPage()
        const token = await world.run(
          async (visit, entry) => {
            const worker = new Worker('/package-worker.js', { type: 'module' })
            try {
              return await new Promise((resolve, reject) => {
                worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.token))
                worker.onerror = (event) => reject(new Error(event.message ?? 'the worker did not start'))
                worker.postMessage({ visit, entry })
              })
            } finally {
              worker.terminate()
            }
          },
          visit,
          entry,
        )
        assert.match(token, TOKEN)
      })
    }

    test('a service worker gets a token', async (context) => {
      await world.freshPage()
      const outcome = await world.run(async (visit) => {
        let registration
        try {
          registration = await navigator.serviceWorker.register('/package-service-worker.js', { type: 'module' })
        } catch (error) {
          return { refused: String(error) }
        }
        const worker = registration.installing ?? registration.waiting ?? registration.active
        const { port1, port2 } = new MessageChannel()
        const response = new Promise((resolve) => {
          port1.onmessage = ({ data }) => resolve(data)
        })
        worker.postMessage({ visit }, [port2])
        try {
          return await response
        } finally {
          await registration.unregister()
        }
      }, visit)
      if (outcome.refused) {
        // Older Firefox has no service workers that are modules, and with them no way to load the package there.
        assert.match(outcome.refused, /TypeError|SecurityError|NotSupported/)
        context.skip(`this engine has no module service workers: ${outcome.refused}`)
        return
      }
      assert.equal(outcome.error, undefined)
      assert.match(outcome.token, TOKEN)
    })

    describe('the option wasm', () => {
      for (const [what, make] of [
        ['a URL as text', () => '/package/approov_bg.wasm'],
        ['a URL object', () => new URL('/package/approov_bg.wasm', location.href)],
        ['a response of fetch', () => fetch('/package/approov_bg.wasm')],
        ['bytes', async () => (await fetch('/package/approov_bg.wasm')).arrayBuffer()],
        ['a view of bytes', async () => new Uint8Array(await (await fetch('/package/approov_bg.wasm')).arrayBuffer())],
        [
          'a compiled module',
          async () => WebAssembly.compile(await (await fetch('/package/approov_bg.wasm')).arrayBuffer()),
        ],
        ['a file that the server calls something else', () => '/untyped.bin'],
      ]) {
        test(`takes ${what}`, async () => {
          await world.freshPage()
          const begin = world.site.requests.length
          const { token, written } = await world.run(
            async (visit, make) => {
              const written = []
              for (const name of ['log', 'info', 'warn', 'error'])
                console[name] = (...args) => written.push(args.map(String))
              const { Approov } = await import('/package/index.js')
              await Approov.initializeSession({ ...visit.session, wasm: window.eval(`(${make})()`) })
              return { token: await Approov.fetchToken(visit.api, visit.result), written }
            },
            visit,
            String(make),
          )
          assert.match(token, TOKEN)
          assert.deepEqual(written, [])
          const modules = world.site.requests.slice(begin).filter((request) => /wasm|bin$/.test(request))
          assert.equal(modules.length, 1, `${modules}`)
        })
      }

      for (const [what, make, code, message] of /** @type {[string, () => any, string, RegExp][]} */ ([
        ['of a kind that is none of these', () => 7, 'invalid-argument', /"wasm" must be/],
        ['that names a page', () => '/blank.html', 'load-failed', /a page, not WebAssembly$/],
        ['that names nothing', () => '/nothing.wasm', 'load-failed', /status 404$/],
        ['that is broken', () => new Uint8Array([0, 97, 115, 109, 9, 9, 9, 9]), 'load-failed', /could not be loaded/],
        ['that is a rejected promise', () => Promise.reject(new Error('no network')), 'load-failed', /no network/],
      ])) {
        test(`${what} is an ApproovError, and the next call can load`, async () => {
          await world.freshPage()
          const outcome = await world.run(
            async (visit, make) => {
              const { Approov, ApproovError } = await import('/package/index.js')
              const { rejection } = await import('/flow.js')
              const error = await rejection(
                Approov.initializeSession({ ...visit.session, wasm: window.eval(`(${make})()`) }),
              )
              await Approov.initializeSession(visit.session)
              const token = await Approov.fetchToken(visit.api, visit.result)
              return {
                isOurs: error instanceof ApproovError,
                code: error.code,
                retryable: error.retryable,
                message: error.message,
                token,
              }
            },
            visit,
            String(make),
          )
          assert.ok(outcome.isOurs)
          assert.equal(outcome.code, code)
          assert.equal(outcome.retryable, code === 'load-failed')
          assert.match(outcome.message, message)
          assert.match(outcome.token, TOKEN)
        })
      }

      test('does not matter to a fetchToken that comes before', async () => {
        await world.freshPage()
        const begin = world.site.requests.length
        const outcome = await world.run(async (visit) => {
          const { Approov, ApproovSessionError } = await import('/package/index.js')
          const { rejection } = await import('/flow.js')
          const error = await rejection(Approov.fetchToken(visit.api))
          await Approov.initializeSession({ ...visit.session, wasm: '/untyped.bin' })
          return {
            isSession: error instanceof ApproovSessionError,
            code: error.code,
            token: await Approov.fetchToken(visit.api, visit.result),
          }
        }, visit)
        assert.deepEqual([outcome.isSession, outcome.code], [true, 'not-initialized'])
        assert.match(outcome.token, TOKEN)
        assert.ok(!world.site.requests.slice(begin).some((request) => request.includes('approov_bg.wasm')))
      })
    })

    test('where a bundler left the WebAssembly out, the message names the ways', async () => {
      await world.freshPage()
      const { code, message } = await world.run(async (visit) => {
        const { Approov } = await import(/** @type {any} */ ('/alone/index.js'))
        return Approov.initializeSession(visit.session).catch(({ code, message }) => ({ code, message }))
      }, visit)
      assert.equal(code, 'load-failed')
      assert.match(message, /\/alone\/approov_bg\.wasm: status 404; .*"wasm".* approov-web-sdk\/approov\.js$/)
    })

    for (const name of ['fetch', 'crypto']) {
      test(`a page without ${name} gets an error that says so`, async () => {
        await world.freshPage()
        const error = await world.run(
          async (visit, name) => {
            Object.defineProperty(globalThis, name, { value: undefined, configurable: true })
            const { Approov, ApproovError } = await import('/approov.js')
            const { rejection } = await import('/flow.js')
            const error = await rejection(Approov.initializeSession(visit.session))
            return {
              isOurs: error instanceof ApproovError,
              code: error.code,
              message: error.message,
              retryable: error.retryable,
            }
          },
          visit,
          name,
        )
        assert.deepEqual(error, {
          isOurs: true,
          code: 'unsupported',
          message: `the Approov SDK needs ${name}, missing here`,
          retryable: false,
        })
      })
    }

    describe('after a WebAssembly trap', () => {
      // The page's WebAssembly.Instance makes instances in which every function can be made to trap, really: each ends in the
      // `unreachable` of a tiny module when `trapNow` says so.
      const withTraps = async () => {
        const bytes = new Uint8Array([
          0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 8, 1, 4, 116, 114, 97, 112, 0, 0, 10, 5, 1, 3,
          0, 0, 11,
        ])
        const { trap } = /** @type {any} */ ((await WebAssembly.instantiate(bytes)).instance.exports)
        const { Instance } = WebAssembly
        globalThis.instances = []
        WebAssembly.Instance = class {
          constructor(module, imports) {
            const { exports } = new Instance(module, imports)
            // Not the one that only shows whether there may be any.
            if (Object.keys(exports).length) globalThis.instances.push(exports)
            const trapping =
              (/** @type {any} */ value) =>
              (...args) =>
                globalThis.trapNow?.() ? trap() : value(...args)
            this.own = Object.fromEntries(
              Object.entries(exports).map(([name, value]) => [
                name,
                typeof value === 'function' ? trapping(value) : value,
              ]),
            )
          }
          get exports() {
            return this.own
          }
        }
        globalThis.addEventListener('error', (event) => event.preventDefault())
      }

      for (const [when, trapNow] of [
        ['in the call itself', () => () => true],
        [
          'later, while it waits for the response',
          () => {
            let armed = false
            setTimeout(() => {
              armed = true
            })
            return () => armed
          },
        ],
      ]) {
        test(`${when}, the call rejects, and the next session has a fresh instance`, async () => {
          await world.freshPage()
          const outcome = await world.run(
            async (visit, withTraps, trapNow) => {
              await window.eval(`(${withTraps})()`)
              const { Approov, ApproovSessionError } = await import('/approov.js')
              const { rejection } = await import('/flow.js')
              await Approov.initializeSession(visit.session)
              await Approov.fetchToken('shapes.approov.io', visit.result)
              globalThis.told = []
              Approov.on('sessionend', ({ code }) => globalThis.told.push(code))
              globalThis.trapNow = window.eval(`(${trapNow})()`)
              const calls = [
                Approov.fetchToken(visit.api, visit.result),
                Approov.fetchToken('api.example.com', visit.result),
              ]
              const errors = await Promise.all(calls.map(rejection))
              globalThis.trapNow = undefined
              const after = await rejection(Approov.fetchToken(visit.api, visit.result))
              const memory = Object.values(globalThis.instances[0]).find((value) => value instanceof WebAssembly.Memory)
              await new Promise((resolve) => setTimeout(resolve))
              const told = globalThis.told.splice(0)
              const wiped = new Uint8Array(memory.buffer).every((byte) => byte === 0)
              // As the specification's samples do it: a new session with the configuration of the one before.
              await Approov.initializeSession({})
              const token = await Approov.fetchToken(visit.api, visit.result)
              return {
                errors: errors.map((error) => [
                  error instanceof ApproovSessionError,
                  error.code,
                  error.cause?.constructor.name ?? error.message,
                ]),
                after: [
                  after instanceof ApproovSessionError,
                  after.code,
                  after.cause instanceof WebAssembly.RuntimeError,
                ],
                told,
                wiped,
                instances: globalThis.instances.length,
                token,
              }
            },
            visit,
            String(withTraps),
            String(trapNow),
          )
          assert.deepEqual(outcome.errors, [
            [true, 'session-lost', 'RuntimeError'],
            [true, 'session-lost', 'RuntimeError'],
          ])
          assert.deepEqual(outcome.told, ['session-lost'])
          assert.deepEqual(outcome.after, [true, 'session-lost', true])
          assert.equal(outcome.wiped, true)
          assert.equal(outcome.instances, 2)
          assert.match(outcome.token, TOKEN)
        })
      }

      for (const [where, calls] of [
        ['while an instance is made', 0],
        ['in initializeSession', 1],
      ]) {
        for (const times of [1, 2]) {
          test(`${where}, ${times === 1 ? 'a fresh one takes over' : 'twice, it is a lost session'}`, async () => {
            await world.freshPage()
            const outcome = await world.run(
              async (visit, withTraps, calls, times) => {
                await window.eval(`(${withTraps})()`)
                const { Approov, ApproovSessionError } = await import('/approov.js')
                const made = {}
                globalThis.trapNow = () => {
                  const number = globalThis.instances.length
                  made[number] = (made[number] ?? 0) + 1
                  return number <= times && made[number] > calls
                }
                const error = await Approov.initializeSession(visit.session).catch((error) => error)
                globalThis.trapNow = undefined
                const { length } = globalThis.instances
                if (error) await Approov.initializeSession(visit.session)
                return {
                  error: error && [error instanceof ApproovSessionError, error.code, error.cause?.constructor.name],
                  instances: length,
                  token: await Approov.fetchToken(visit.api, visit.result),
                }
              },
              visit,
              String(withTraps),
              calls,
              times,
            )
            assert.deepEqual(outcome.error ?? null, times === 1 ? null : [true, 'session-lost', 'RuntimeError'])
            assert.equal(outcome.instances, 2)
            assert.match(outcome.token, TOKEN)
          })
        }
      }

      test('the lazy pattern gets a token after a trap at any moment', async () => {
        await world.freshPage()
        const tokens = await world.run(
          async (visit, withTraps) => {
            await window.eval(`(${withTraps})()`)
            const { Approov, ApproovSessionError } = await import('/approov.js')
            const lazily = async () => {
              try {
                return await Approov.fetchToken(visit.api)
              } catch (error) {
                if (!(error instanceof ApproovSessionError)) throw error
                await Approov.initializeSession(visit.session)
                return Approov.fetchToken(visit.api, visit.result)
              }
            }
            const tokens = []
            // Each visit traps once, a few calls into the WebAssembly later than the one before.
            for (let calls = 0; calls < 60; calls += 3) {
              let left = calls
              globalThis.trapNow = () => left-- === 0
              tokens.push(await lazily().catch(() => lazily()))
            }
            return tokens
          },
          visit,
          String(withTraps),
        )
        assert.equal(tokens.length, 20)
        for (const token of tokens) assert.match(token, TOKEN)
      })

      test('the module is not loaded again', async () => {
        await world.freshPage()
        const begin = world.site.requests.length
        await world.run(
          async (visit, withTraps) => {
            await window.eval(`(${withTraps})()`)
            const { Approov } = await import('/package/index.js')
            const { rejection } = await import('/flow.js')
            await Approov.initializeSession(visit.session)
            globalThis.trapNow = () => true
            await rejection(Approov.getExpiries())
            globalThis.trapNow = undefined
            await Approov.initializeSession({})
          },
          visit,
          String(withTraps),
        )
        assert.equal(world.site.requests.slice(begin).filter((request) => request.endsWith('.wasm')).length, 1)
      })
    })
  })
}

function moduleScript() {
  return `<!doctype html>
<meta charset="utf-8">
<title>waiting</title>
<link rel="icon" href="data:,">
<script type="module">
  import { Approov } from '/approov.js'
  const { api, session, result } = JSON.parse(decodeURIComponent(location.hash.slice(1)))
  await Approov.initializeSession(session)
  document.title = await Approov.fetchToken(api, result)
</script>`
}
