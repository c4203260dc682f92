// A page that stays open for days: nothing piles up, and nothing is left behind.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { unpackTarball } from '../harness/world.mjs'
import { startStub, stubOptions, useStub } from '../harness/stub.mjs'

for (const engine of chosenEngines()) {
  describe(`a page open for long in ${ENGINES[engine].title}`, () => {
    const suite = useStub(engine, async (options) => {
      WebAssembly.Instance = new Proxy(WebAssembly.Instance, {
        construct(...args) {
          const instance = Reflect.construct(...args)
          globalThis.memory = Object.values(instance.exports).find((value) => value instanceof WebAssembly.Memory)
          return instance
        },
      })
      Object.assign(globalThis, await import('/approov.js'))
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
    })
    let world
    let stub
    before(() => {
      ;({ world, stub } = suite)
    })

    test('ten thousand cached calls with a signal leave no memory, no listener and no timer', async () => {
      const { grown, listeners, timers } = await world.run(async () => {
        const controller = new AbortController()
        const { signal } = controller
        let listeners = 0
        signal.addEventListener = (...args) => (
          (listeners += 1),
          EventTarget.prototype.addEventListener.apply(signal, args)
        )
        signal.removeEventListener = (...args) => (
          (listeners -= 1),
          EventTarget.prototype.removeEventListener.apply(signal, args)
        )
        const { setTimeout, clearTimeout } = globalThis
        const running = new Set()
        globalThis.setTimeout = (work, ...rest) => {
          const id = setTimeout((...args) => (running.delete(id), work(...args)), ...rest)
          running.add(id)
          return id
        }
        globalThis.clearTimeout = (id) => (running.delete(id), clearTimeout(id))
        const calls = async (count) => {
          for (let i = 0; i < count; i++)
            await Approov.fetchToken('api', { recaptchaToken: 'r', payload: undefined, signal })
        }
        await calls(500)
        const before = memory.buffer.byteLength
        await calls(10_000)
        Object.assign(globalThis, { setTimeout, clearTimeout })
        return { grown: memory.buffer.byteLength - before, listeners, timers: running.size }
      })
      assert.deepEqual({ grown, listeners, timers }, { grown: 0, listeners: 0, timers: 0 })
      assert.equal(stub.forms().length, 1)
    })

    test('ten thousand calls that waited for a request leave no memory and no listener on their signal', async () => {
      const { grown, listeners } = await world.run(async () => {
        const { signal } = new AbortController()
        let listeners = 0
        signal.addEventListener = (...args) => (
          (listeners += 1),
          EventTarget.prototype.addEventListener.apply(signal, args)
        )
        signal.removeEventListener = (...args) => (
          (listeners -= 1),
          EventTarget.prototype.removeEventListener.apply(signal, args)
        )
        let api = 0
        const calls = async (rounds) => {
          for (let round = 0; round < rounds; round++) {
            // Another payload each time, so that each round is a request that a thousand calls wait for.
            const payload = `round ${(api += 1)}`
            await Promise.all(Array.from({ length: 1000 }, () => Approov.fetchToken('api', { payload, signal })))
          }
        }
        await calls(2)
        const before = memory.buffer.byteLength
        await calls(10)
        return { grown: memory.buffer.byteLength - before, listeners }
      })
      assert.equal(stub.forms().length, 13)
      assert.deepEqual({ grown, listeners }, { grown: 0, listeners: 0 })
    })

    test('failures, time-outs and new sessions leave no memory either', async () => {
      const grown = await world.run(
        async (options) => {
          const round = async () => {
            await Approov.initializeSession(options)
            await Approov.fetchToken('api', { recaptchaToken: 'r', timeout: 1 }).catch(() => {})
            await Approov.fetchToken('api', { recaptchaToken: 'r', signal: AbortSignal.abort() }).catch(() => {})
            await Approov.fetchToken('', {}).catch(() => {})
            await Approov.getDPoPToken('GET', 'https://a/', 'n', 't', 's')
            await Approov.messageSignature(new Uint8Array(1000))
          }
          for (let i = 0; i < 20; i++) await round()
          const before = memory.buffer.byteLength
          for (let i = 0; i < 100; i++) await round()
          return memory.buffer.byteLength - before
        },
        { ...stubOptions(stub), keyStorage: 'wasm' },
      )
      assert.ok(grown <= 65_536, `grew by ${grown} bytes`)
    })
  })
}

describe('a program in Node', () => {
  test('ends by itself when it is done with the SDK, even with a signal that lives on', async () => {
    const unpacked = await unpackTarball()
    const stub = await startStub()
    try {
      const program = `
        const { Approov } = await import(${JSON.stringify(pathToFileURL(join(unpacked.path, 'approov.js')).href)})
        const { signal } = new AbortController()
        await Approov.initializeSession(${JSON.stringify(stubOptions(stub))})
        const token = await Approov.fetchToken('api', { recaptchaToken: 'r', signal })
        await Approov.fetchToken('other', { timeout: 3600000, signal })
        console.log(token.startsWith('token.'), performance.now())`
      const begin = Date.now()
      const { stdout, stderr } = await promisify(execFile)(
        process.execPath,
        ['--input-type=module', '--eval', program],
        { timeout: 30_000 },
      )
      assert.match(stdout, /^true /)
      assert.equal(stderr, '')
      const [, busy] = stdout.split(' ').map(Number)
      assert.ok(
        Date.now() - begin - busy < 8000,
        'connections that are kept open end within seconds, time-outs at once',
      )
    } finally {
      await stub.stop()
      await unpacked.remove()
    }
  })
})
