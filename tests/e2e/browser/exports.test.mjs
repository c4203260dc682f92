// What the package gives page script to reach: the documented functions and errors, never memory, instance or key.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`exports in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    for (const entry of ['/approov.js', '/package/index.js', '/package/lite.js']) {
      test(`${entry} exports exactly what the types name`, async () => {
        await world.freshPage()
        const exported = await world.run(async (entry) => Object.keys(await import(entry)), entry)
        assert.deepEqual(exported.sort(), [
          'Approov',
          'ApproovCheckError',
          'ApproovError',
          'ApproovFetchError',
          'ApproovServiceError',
          'ApproovSessionError',
          ...(entry === '/approov.js' ? ['checks'] : []),
        ])
        const functions = await world.run(async (entry) => {
          const { Approov } = await import(entry)
          return Object.getOwnPropertyNames(Approov).filter(
            (name) => typeof Approov[name] === 'function' && name !== 'prototype',
          )
        }, entry)
        assert.deepEqual(functions.sort(), [
          'createFetch',
          'fetchToken',
          'getDPoPToken',
          'getExpiries',
          'initializeSession',
          'messageSignature',
        ])
      })

      test(`nothing reachable from ${entry} is the WebAssembly memory, an instance or a key`, async () => {
        for (const keyStorage of entry.endsWith('lite.js') ? ['webcrypto'] : ['webcrypto', 'wasm']) {
          await world.freshPage()
          const found = await world.run(
            async (settings, entry, keyStorage) => {
              const exported = await import(entry)
              const { passCheck, PATIENCE, rejection, sessionOptions } = await import('/flow.js')
              const { Approov } = exported
              await Approov.initializeSession(sessionOptions(settings, 'hcaptcha', { keyStorage }))
              const token = await Approov.fetchToken(settings.api, await passCheck(settings, 'hcaptcha'))
              const results = [
                token,
                await Approov.getDPoPToken('GET', settings.apiUrl, '', token),
                await Approov.messageSignature(new Uint8Array(3)),
                await Approov.getExpiries(),
                await rejection(Approov.messageSignature('text')),
                await rejection(Approov.fetchToken('unknown.example.org', { timeout: PATIENCE })),
              ]
              const forbidden = [
                WebAssembly.Memory,
                WebAssembly.Instance,
                WebAssembly.Module,
                WebAssembly.Table,
                WebAssembly.Global,
                CryptoKey,
              ]
              const seen = new Set()
              const bad = []
              const walk = (value, path) => {
                if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value))
                  return
                if (value === globalThis || value === document) return
                seen.add(value)
                if (forbidden.some((type) => value instanceof type)) bad.push(`${path}: ${value.constructor.name}`)
                if (value instanceof ArrayBuffer && value.byteLength > 4096) bad.push(`${path}: a large buffer`)
                for (const key of Reflect.ownKeys(value)) {
                  const { value: member, get, set } = Reflect.getOwnPropertyDescriptor(value, key)
                  for (const next of [member, get, set]) walk(next, `${path}.${String(key)}`)
                }
                walk(Object.getPrototypeOf(value), `${path}.__proto__`)
              }
              walk({ ...exported }, 'exports')
              results.forEach((result, index) => walk(result, `result ${index}`))
              // The walk itself works: it finds what is planted.
              const count = bad.length
              walk({ planted: { memory: new WebAssembly.Memory({ initial: 1 }) } }, 'planted')
              if (bad.length === count) throw new Error('the walk does not find a planted memory')
              return { bad: bad.slice(0, count), seen: seen.size }
            },
            world.settings,
            entry,
            keyStorage,
          )
          assert.deepEqual(found.bad, [], keyStorage)
          assert.ok(found.seen > 20, `only ${found.seen} objects were visited`)
        }
      })
    }

    for (const entry of ['/package/index.js', '/package/lite.js']) {
      test(`${entry} works with its WebAssembly next to it`, async () => {
        await world.freshPage()
        const begin = world.site.requests.length
        const proof = await world.run(
          async (settings, entry) => {
            const { Approov } = await import(entry)
            const { sessionOptions } = await import('/flow.js')
            await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
            return Approov.getDPoPToken('GET', settings.apiUrl)
          },
          world.settings,
          entry,
        )
        assert.equal(proof.split('.').length, 3)
        assert.equal(world.site.requests.slice(begin).filter((request) => request.endsWith('.wasm')).length, 1)
      })
    }

    test('the lite build has no key store in WebAssembly and says so', async () => {
      await world.freshPage()
      const error = await world.run(async (settings) => {
        const { Approov, ApproovError } = await import('/package/lite.js')
        const { rejection, sessionOptions } = await import('/flow.js')
        const error = await rejection(
          Approov.initializeSession(sessionOptions(settings, 'hcaptcha', { keyStorage: 'wasm' })),
        )
        return { isOurs: error instanceof ApproovError, message: error.message }
      }, world.settings)
      assert.equal(error.isOurs, true)
      assert.match(error.message, /keyStorage|wasm/)
    })

    test('nothing is written to the console in a whole flow', async () => {
      await world.freshPage()
      const written = await world.run(async (settings) => {
        const written = []
        for (const name of ['log', 'info', 'warn', 'error', 'debug', 'trace'])
          console[name] = (...args) => written.push([name, ...args.map(String)])
        const { Approov } = await import('/approov.js')
        const { firstToken, rejection } = await import('/flow.js')
        const token = await firstToken(settings, 'fingerprint')
        await Approov.getDPoPToken('GET', settings.apiUrl, 'nonce', token)
        await Approov.messageSignature(new Uint8Array([1, 2, 3]))
        await rejection(Approov.messageSignature(/** @type {any} */ ('not bytes')))
        return written
      }, world.settings)
      assert.deepEqual(written, [])
    })
  })
}
