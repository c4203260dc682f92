// A page that stays open for days: nothing piles up, and nothing stays behind.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { beforeEach, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

import { createStub, describeWithStub, respond } from '../harness/stub.mjs'
import { HANG } from '../harness/wait.mjs'
import { unpackTarball } from '../harness/world.mjs'

/** Makes the memory of the SDK's WebAssembly visible as `memory`, and how many requests it has sent as `sent`. */
const prepare = () => {
  WebAssembly.Instance = new Proxy(WebAssembly.Instance, {
    construct(...args) {
      const instance = Reflect.construct(...args)
      globalThis.memory = Object.values(instance.exports).find((value) => value instanceof WebAssembly.Memory)
      return instance
    },
  })
  const { fetch } = globalThis
  globalThis.sent = 0
  globalThis.fetch = (resource, init) => {
    globalThis.sent += 1
    return fetch(resource, init)
  }
}

const define = ({ stub, run }) => {
  /** Each test has a session with a token. */
  beforeEach(() =>
    run(async () => {
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
    }),
  )

  test('ten thousand cached calls with a signal leave no memory, no listener and no timer', async () => {
    const { grown, listeners, timers } = await run(async () => {
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
      const calls = async (count) => {
        for (let i = 0; i < count; i++)
          await Approov.fetchToken('api', { recaptchaToken: 'r', payload: undefined, signal })
      }
      await calls(500)
      const before = memory.buffer.byteLength
      await calls(10_000)
      return { grown: memory.buffer.byteLength - before, listeners, timers: clock.timers().length }
    })
    assert.deepEqual({ grown, listeners, timers }, { grown: 0, listeners: 0, timers: 0 })
    assert.equal(stub.forms().length, 1)
  })

  test('ten thousand calls that waited for a request leave no memory and no listener on their signal', async () => {
    const { grown, listeners } = await run(async () => {
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
    // A request for the API "never" gets no response, one with the result "late" gets it when the next round begins.
    let release = () => {}
    stub.reply((response, form) => {
      release()
      const grant = () => respond(response, 200, stub.grant(form))
      const params = new URLSearchParams(form)
      const isLate = params.get('recaptcha-token') === 'late'
      release = isLate ? grant : () => {}
      if (!isLate && params.get('api') !== 'never') grant()
    })
    const grown = await run(async () => {
      /** Begins a call that sends a request, and lets it time out. */
      const timeOut = async (api, more) => {
        const before = sent
        const call = outcome(Approov.fetchToken(api, { ...more, timeout: 1 }))
        while (sent === before) await new Promise((resolve) => setTimeout(resolve))
        await clock.advance(1)
        if ((await call) !== 'ApproovFetchError timeout') throw new Error(`not timed out: ${await call}`)
      }
      const round = async () => {
        await Approov.initializeSession({ ...options, keyStorage: 'wasm' })
        await Approov.fetchToken('api', { recaptchaToken: 'r' })
        await timeOut('never')
        // This one runs on in the background.
        await timeOut('api', { recaptchaToken: 'late' })
        await Approov.fetchToken('api', { recaptchaToken: 'r', signal: AbortSignal.abort() }).catch(() => {})
        await Approov.fetchToken('', {}).catch(() => {})
        await Approov.getDPoPToken('GET', 'https://a/', 'n', 't', 's')
        await Approov.messageSignature(new Uint8Array(1000))
      }
      for (let i = 0; i < 20; i++) await round()
      const before = memory.buffer.byteLength
      for (let i = 0; i < 100; i++) await round()
      return memory.buffer.byteLength - before
    })
    assert.ok(grown <= 65_536, `grew by ${grown} bytes`)
  })
}

describeWithStub('a page open for long', define, { prepare })

describe('a program in Node', () => {
  test('ends by itself when it is done with the SDK, even with a signal that lives on', async () => {
    const unpacked = await unpackTarball()
    const stub = createStub()
    await stub.start()
    try {
      // The time-out of an hour is what would keep the program alive.
      const program = `
        const { Approov } = await import(${JSON.stringify(pathToFileURL(join(unpacked.path, 'approov.js')).href)})
        const { signal } = new AbortController()
        await Approov.initializeSession(${JSON.stringify(stub.options())})
        const token = await Approov.fetchToken('api', { recaptchaToken: 'r', timeout: 3600000, signal })
        await Approov.fetchToken('other', { timeout: 3600000, signal })
        console.log(token.startsWith('token.'))`
      const { stdout, stderr } = await promisify(execFile)(
        process.execPath,
        ['--input-type=module', '--eval', program],
        { timeout: HANG },
      )
      assert.equal(stdout, 'true\n')
      assert.equal(stderr, '')
    } finally {
      await stub.stop()
      await unpacked.remove()
    }
  })
})
