// Without WebAssembly: where it is missing, or the page's content security policy forbids it.
import assert from 'node:assert/strict'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/
/** The response of hCaptcha's public test pair, which always passes. */
const PASSED = '10000000-aaaa-bbbb-cccc-000000000001'
const COMPAT = 'approov.compat.js'

/**
 * The policies that Approov's public quickstarts for these check services tell a page to have. None allows WebAssembly. (That of
 * Fingerprint says nothing of scripts.)
 */
const QUICKSTARTS = {
  hCaptcha: [
    'connect-src https://your-domains.com https://web-1.approovr.io/;',
    'frame-src https://newassets.hcaptcha.com/captcha/;',
    "script-src 'self' https://hcaptcha.com/1/api.js https://newassets.hcaptcha.com/captcha/;",
  ].join(' '),
  reCAPTCHA: [
    'connect-src https://your-domains.com https://web-1.approovr.io/;',
    'frame-src https://www.google.com/recaptcha/api2/;',
    "script-src 'self' https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/;",
  ].join(' '),
}

const page = (policy) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>waiting</title>
<link rel="icon" href="data:,">
<script type="module" src="/compat.js"></script>
</html>`

for (const engine of chosenEngines()) {
  describe(`without WebAssembly in ${ENGINES[engine].title}`, () => {
    let world
    let directory
    let visit
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'approov-compat-'))
      const policies = {}
      const routes = Object.fromEntries(
        [...Object.keys(QUICKSTARTS), 'allowing'].map((name) => [`/${name}.html`, () => page(policies[name])]),
      )
      world = await startWorld(engine, {
        routes,
        mounts: {
          '/alone/approov.js': COMPAT,
          '/late/approov.js': 'approov.js',
          [`/late/${COMPAT}`]: join(directory, COMPAT),
        },
      })
      const { approovHost, approovSiteKey, keys, api, apiUrl } = world.settings
      const here = (policy) =>
        policy
          .replace('https://your-domains.com', new URL(apiUrl).origin)
          .replace('https://web-1.approovr.io', world.service.url)
      for (const [name, policy] of Object.entries(QUICKSTARTS)) policies[name] = here(policy)
      policies.allowing = policies.hCaptcha
        .replace("script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'")
        .replace('connect-src', "connect-src 'self'")
      visit = {
        api,
        apiUrl,
        session: { approovHost, approovSiteKey, ...keys.hcaptcha },
        result: { hcaptchaToken: PASSED, timeout: HANG },
      }
    })
    after(async () => {
      await world?.stop()
      await rm(directory, { recursive: true, force: true })
    })

    /** What came of a visit under a policy, and the files of the package that it asked for. */
    async function visitUnder(policy, entry) {
      // By way of another document: a changed fragment alone is no new page.
      await world.webdriver.get('about:blank')
      const begin = world.site.requests.length
      const task = encodeURIComponent(JSON.stringify({ ...visit, entry }))
      await world.webdriver.get(`${world.site.url}/${policy}.html#${task}`)
      await world.webdriver.wait(async () => (await world.webdriver.getTitle()).startsWith('{'), HANG)
      const requests = world.site.requests.slice(begin)
      const files = requests
        .map((request) => request.split('/').at(-1))
        .filter((name) => /approov|index|node/.test(name))
      return { ...JSON.parse(await world.webdriver.getTitle()), files }
    }

    function assertWhole(outcome) {
      assert.equal(outcome.error, undefined)
      assert.deepEqual(outcome.plain, [200, true])
      assert.deepEqual(outcome.fetched, [200, true])
      assert.equal(outcome.signature, 64)
      assert.deepEqual(outcome.expiries, [`hcap:${visit.session.hcaptchaSiteKey}`, 'session'])
    }

    for (const quickstart of Object.keys(QUICKSTARTS)) {
      for (const entry of ['approov.js', 'index.js', 'node.js']) {
        test(`the policy of the ${quickstart} quickstart lets ${entry} do a whole flow`, async () => {
          const outcome = await visitUnder(quickstart, `/package/${entry}`)
          assertWhole(outcome)
          assert.deepEqual(outcome.files, [entry, COMPAT])
        })
      }

      test(`the policy of the ${quickstart} quickstart suits a copy as approov.js, without a violation`, async () => {
        const outcome = await visitUnder(quickstart, '/alone/approov.js')
        assertWhole(outcome)
        assert.deepEqual(outcome.files, ['approov.js'])
        assert.deepEqual(outcome.violations, [])
      })
    }

    for (const [entry, files] of /** @type {[string, string[]][]} */ ([
      ['approov.js', ['approov.js']],
      ['index.js', ['index.js', 'approov_bg.wasm']],
    ])) {
      test(`a policy that allows WebAssembly lets ${entry} do without ${COMPAT}`, async () => {
        const outcome = await visitUnder('allowing', `/package/${entry}`)
        assertWhole(outcome)
        assert.deepEqual(outcome.files, files)
        assert.deepEqual(outcome.violations, [])
      })
    }

    test('a browser without WebAssembly, as in Lockdown Mode, gets a token', async () => {
      await world.freshPage()
      const token = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const { Approov } = await import('/package/index.js')
        await Approov.initializeSession(visit.session)
        return Approov.fetchToken(visit.api, visit.result)
      }, visit)
      assert.match(token, TOKEN)
    })

    test('a WebAssembly.Module that is given is used even where none can be compiled', async () => {
      await world.freshPage()
      const begin = world.site.requests.length
      const token = await world.run(async (visit) => {
        const wasm = await WebAssembly.compile(await (await fetch('/package/approov_bg.wasm')).arrayBuffer())
        WebAssembly.Module = /** @type {any} */ (
          class {
            constructor() {
              throw new WebAssembly.CompileError('forbidden')
            }
          }
        )
        const { Approov } = await import('/package/index.js')
        await Approov.initializeSession({ ...visit.session, wasm })
        return Approov.fetchToken(visit.api, visit.result)
      }, visit)
      assert.match(token, TOKEN)
      assert.ok(!world.site.requests.slice(begin).some((request) => request.includes(COMPAT)))
    })

    test(`where ${COMPAT} is missing, the error names it and the policy, and a later call can load it`, async () => {
      const load = async () => {
        const { Approov, ApproovError } = await import(/** @type {any} */ ('/late/approov.js'))
        const error = await Approov.initializeSession(globalThis.visit.session).then(
          () => undefined,
          (error) => error,
        )
        if (!error) return { token: await Approov.fetchToken(globalThis.visit.api, globalThis.visit.result) }
        const { code, message, retryable } = error
        return { isOurs: error instanceof ApproovError, code, message, retryable }
      }
      await world.freshPage()
      const first = await world.run(
        async (visit, load) => {
          delete globalThis.WebAssembly
          globalThis.visit = visit
          globalThis.load = window.eval(`(${load})`)
          return globalThis.load()
        },
        visit,
        String(load),
      )
      assert.deepEqual([first.isOurs, first.code, first.retryable], [true, 'unsupported', true])
      assert.match(first.message, /'wasm-unsafe-eval' to script-src .* serve approov\.compat\.js /)
      await copyFile(join(world.packagePath, COMPAT), join(directory, COMPAT))
      const second = await world.run(() => globalThis.load())
      assert.match(second.token ?? second.message, TOKEN)
    })

    test("keyStorage 'wasm' is unsupported", async () => {
      await world.freshPage()
      const error = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const { Approov, ApproovError } = await import('/package/index.js')
        const { rejection } = await import('/flow.js')
        const error = await rejection(Approov.initializeSession({ ...visit.session, keyStorage: 'wasm' }))
        return { isOurs: error instanceof ApproovError, code: error.code }
      }, visit)
      assert.deepEqual(error, { isOurs: true, code: 'unsupported' })
    })

    test("errors are of the importing file's classes", async () => {
      await world.freshPage()
      const found = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const { Approov, ApproovError, ApproovServiceError, ApproovSessionError } = await import('/package/index.js')
        const { rejection } = await import('/flow.js')
        const none = await rejection(Approov.fetchToken(visit.api))
        const argument = await rejection(Approov.initializeSession({ ...visit.session, approovHost: 7 }))
        await Approov.initializeSession(visit.session)
        const required = await rejection(Approov.fetchToken(visit.api))
        const service = await rejection(Approov.fetchToken('unknown.example.com', visit.result))
        return [
          [none instanceof ApproovSessionError, none.code],
          [argument instanceof ApproovError, argument.code],
          [required instanceof ApproovSessionError, required.code],
          [service instanceof ApproovServiceError, service.code],
        ]
      }, visit)
      assert.deepEqual(found, [
        [true, 'not-initialized'],
        [true, 'invalid-argument'],
        [true, 'results-required'],
        [true, 'service'],
      ])
    })

    test('memory grows, and what it leaves is wiped', async () => {
      await world.freshPage()
      const found = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const buffers = []
        globalThis.ArrayBuffer = class extends ArrayBuffer {
          constructor(length) {
            super(length)
            if (length > 1 << 20) buffers.push(this)
          }
        }
        const { Approov } = await import('/package/index.js')
        await Approov.initializeSession(visit.session)
        const token = await Approov.fetchToken(visit.api, visit.result)
        const before = buffers.length
        const nonce = 'é'.repeat(2_000_000)
        const proof = await Approov.getDPoPToken('GET', visit.apiUrl, nonce, token)
        const bytes = (text) =>
          Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (sign) => sign.charCodeAt(0))
        const json = (text) => JSON.parse(new TextDecoder().decode(bytes(text)))
        const [header, payload, signature] = proof.split('.')
        const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
        const key = await crypto.subtle.importKey('jwk', json(header).jwk, algorithm, false, ['verify'])
        const signed = new TextEncoder().encode(`${header}.${payload}`)
        return {
          grown: buffers.length > before,
          wiped: buffers.slice(0, -1).map((buffer) => new Uint8Array(buffer).every((byte) => byte === 0)),
          isKept: new Uint8Array(buffers.at(-1)).some((byte) => byte !== 0),
          isGood: await crypto.subtle.verify(algorithm, key, bytes(signature), signed),
          isWhole: json(payload).nonce === nonce,
          again: await Approov.fetchToken(visit.api),
          token,
        }
      }, visit)
      assert.ok(found.grown)
      assert.ok(found.wiped.length > 0 && found.wiped.every(Boolean), `${found.wiped}`)
      assert.ok(found.isKept)
      assert.ok(found.isGood && found.isWhole)
      assert.equal(found.again, found.token)
    })

    test('a call that calls itself without end loses the session at most', async () => {
      await world.freshPage()
      const found = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const { Approov } = await import('/package/index.js')
        await Approov.initializeSession(visit.session)
        await Approov.fetchToken(visit.api, visit.result)
        const ends = new Set()
        let calls = 0
        const call = async () => {
          calls += 1
          const options = {
            get payload() {
              call()
              return 'payload'
            },
          }
          await Approov.fetchToken(visit.api, options).then(
            () => ends.add('token'),
            (error) => ends.add(error.code ?? error.constructor.name),
          )
        }
        await call().catch(() => {})
        await Approov.initializeSession(visit.session)
        return { ends: [...ends], calls, token: await Approov.fetchToken(visit.api, visit.result) }
      }, visit)
      assert.ok(found.calls > 50, `${found.calls}`)
      // Where the stack ends depends on the engine: in the page's getter, in the glue, in the code.
      // V8 calls it a SyntaxError when the stack ends while it compiles a regular expression.
      const known = [
        'token',
        'session-lost',
        'internal',
        'invalid-argument',
        'RangeError',
        'InternalError',
        'SyntaxError',
      ]
      assert.ok(found.ends.length > 0)
      for (const end of found.ends) assert.ok(known.includes(end), end)
      assert.match(found.token, TOKEN)
    })

    test('script that comes after the facade sees neither key nor memory in what it replaces', async () => {
      await world.freshPage()
      const found = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const { Approov } = await import('/package/index.js')
        const { apply, defineProperty, getOwnPropertyDescriptor, ownKeys } = Reflect
        const bytes = Object.getPrototypeOf(Uint8Array.prototype)
        const lengthOf = getOwnPropertyDescriptor(ArrayBuffer.prototype, 'byteLength').get
        const bufferOf = getOwnPropertyDescriptor(bytes, 'buffer').get
        const { isView } = ArrayBuffer
        const { Array: RealArray } = globalThis
        const attempt = (work) => {
          try {
            return work()
          } catch {
            return undefined
          }
        }
        const isLarge = (value) =>
          (attempt(() => apply(lengthOf, isView(value) ? apply(bufferOf, value, []) : value, [])) ?? 0) > 500_000
        const leads = (value) =>
          value !== null &&
          typeof value === 'object' &&
          (isLarge(value) || (value instanceof RealArray && attempt(() => value.length > 1000) === true))
        const seen = {}
        const undo = []
        /** Makes every method of an object tell what it is called on and with. */
        const hook = (of, what) => {
          for (const name of ownKeys(of)) {
            const descriptor = getOwnPropertyDescriptor(of, name)
            if (!descriptor.configurable || name === 'constructor') continue
            const hooked = { ...descriptor }
            for (const kind of ['value', 'get', 'set']) {
              const real = descriptor[kind]
              if (typeof real !== 'function') continue
              hooked[kind] = function (...args) {
                if (leads(this) || leads(args[0])) seen[`${what}.${String(name)}`] = true
                return new.target ? new real(...args) : apply(real, this, args)
              }
              hooked[kind].prototype = real.prototype
            }
            if (attempt(() => defineProperty(of, name, hooked))) undo.push(() => defineProperty(of, name, descriptor))
          }
        }
        hook(bytes, '%TypedArray%')
        for (const name of ['Int8Array', 'Uint8Array', 'DataView', 'ArrayBuffer', 'Array']) {
          hook(globalThis[name].prototype, name)
        }
        hook(Math, 'Math')
        hook(Object, 'Object')
        for (const name of ['ArrayBuffer', 'Int8Array', 'Uint8Array', 'Int32Array', 'Float64Array', 'DataView']) {
          const { [name]: real } = /** @type {any} */ (globalThis)
          globalThis[name] = new Proxy(real, {
            construct(target, args, newTarget) {
              if (leads(args[0]) || args[0] > 500_000) seen[`new ${name}`] = true
              return Reflect.construct(target, args, newTarget)
            },
          })
          undo.push(() => {
            globalThis[name] = real
          })
        }
        let token
        try {
          await Approov.initializeSession(visit.session)
          token = await Approov.fetchToken(visit.api, visit.result)
          await Approov.getDPoPToken('GET', visit.apiUrl, 'x'.repeat(2_000_000), token)
          // That it would be seen.
          new Uint8Array(new ArrayBuffer(1 << 20)).fill(0)
        } finally {
          for (const one of undo) one()
        }
        return { seen: Object.keys(seen).sort(), token }
      }, visit)
      assert.match(found.token, TOKEN)
      assert.deepEqual(found.seen, ['%TypedArray%.fill', 'new ArrayBuffer', 'new Uint8Array'])
    })

    test('after what would be a trap, the session is lost, its memory wiped, and the next one is fresh', async () => {
      await world.freshPage()
      const found = await world.run(async (visit) => {
        delete globalThis.WebAssembly
        const buffers = []
        globalThis.ArrayBuffer = class extends ArrayBuffer {
          constructor(length) {
            super(length)
            if (length > 1 << 20) buffers.push(this)
          }
        }
        const { Approov, ApproovSessionError } = await import('/package/index.js')
        const { rejection } = await import('/flow.js')
        await Approov.initializeSession(visit.session)
        await Approov.fetchToken(visit.api, visit.result)
        const { now } = Date
        // What an import throws leaves the code at a place that it cannot go on from.
        Date.now = () => {
          throw new Error('no clock')
        }
        const errors = [await rejection(Approov.fetchToken(visit.api)), await rejection(Approov.getExpiries())]
        Date.now = now
        const wiped = buffers.map((buffer) => new Uint8Array(buffer).every((byte) => byte === 0))
        await Approov.initializeSession({})
        return {
          errors: errors.map((error) => [error instanceof ApproovSessionError, error.code, error.cause?.message]),
          wiped,
          token: await Approov.fetchToken(visit.api, visit.result),
        }
      }, visit)
      assert.deepEqual(found.errors, [
        [true, 'session-lost', 'no clock'],
        [true, 'session-lost', 'no clock'],
      ])
      assert.ok(found.wiped.length > 0 && found.wiped.every(Boolean))
      assert.match(found.token, TOKEN)
    })
  })
}
