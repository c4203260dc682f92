// Pages in which another script works against the SDK: what it adds to Object.prototype, and what it puts in place of built-ins
// after the SDK was evaluated.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'

import { describeWithStub } from '../harness/stub.mjs'

describeWithStub('hostile pages', ({ stub, run }) => {
  describe('what is on Object.prototype', () => {
    test('is no option of initializeSession', async () => {
      const seen = await run(async () => {
        const generated = []
        const { generateKey } = SubtleCrypto.prototype
        SubtleCrypto.prototype.generateKey = function (...args) {
          generated.push(args[1])
          return generateKey.apply(this, args)
        }
        const { Approov } = await import('/approov.js?evaluated-after-that')
        const polluted = {
          approovHost: 'elsewhere.example.com',
          approovSiteKey: 'another',
          hcaptchaSiteKey: 'another',
          keyStorage: 'wasm',
          wasm: '/nothing.wasm',
        }
        Object.assign(Object.prototype, polluted)
        try {
          const empty = await Approov.initializeSession({}).catch((error) => error.code)
          await Approov.initializeSession(options)
          await Approov.initializeSession({})
          await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
          return { empty, generated }
        } finally {
          for (const name of Object.keys(polluted)) delete Object.prototype[name]
        }
      })
      assert.equal(seen.empty, 'invalid-argument')
      assert.deepEqual(seen.generated, [false, false])
      const [form] = stub.forms()
      assert.match(form, /approov-site-key=site&/)
      assert.doesNotMatch(form, /hcaptcha|another/)
    })

    test('is no option of fetchToken, nor a part of one', async () => {
      await run(async () => {
        const { Approov } = await import('/approov.js')
        await Approov.initializeSession({ ...options, hcaptchaSiteKey: 'hc', fingerprintPublicAPIKey: 'fp' })
        const polluted = {
          payload: 'p',
          timeout: -1,
          signal: AbortSignal.abort(),
          fingerprintIDResult: { visitorId: 'v', requestId: 'r' },
          key: 'k',
          host: 'elsewhere.example.com',
        }
        Object.assign(Object.prototype, polluted)
        try {
          await Approov.fetchToken('api.example.com', { hcaptchaToken: { response: 'h' } })
          await Approov.fetchToken('api.example.com', {})
          await Approov.fetchToken('api.example.com')
        } finally {
          for (const name of Object.keys(polluted)) delete Object.prototype[name]
        }
      })
      assert.equal(stub.forms().length, 1)
      assert.deepEqual(
        [...new URLSearchParams(stub.forms()[0]).keys()],
        ['api', 'approov-site-key', 'hcaptcha-site-key', 'hcaptcha-token'],
      )
    })

    test('changes nothing of requests, errors and results', async () => {
      const outcome = await run(async () => {
        const { Approov, ApproovError } = await import('/approov.js')
        await Approov.initializeSession(options)
        const polluted = {
          method: 'PUT',
          body: 'x',
          mode: 'no-cors',
          cache: 'force-cache',
          credentials: 'include',
          integrity: 'sha384-x',
          keepalive: true,
          cause: 'polluted',
          errors: 'polluted',
          code: 'polluted',
          retryable: 'polluted',
          class: 'ApproovServiceError',
        }
        Object.assign(Object.prototype, polluted)
        try {
          await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
          const describe = (/** @type {any} */ { code, retryable, cause }) => ({ code, retryable, cause })
          const error = await rejection(Approov.fetchToken(''))
          return {
            error: { ...describe(error), errors: Object.hasOwn(error, 'errors') },
            plain: describe(new ApproovError('x')),
            expiries: Object.keys(await Approov.getExpiries()),
            proof: await Approov.getDPoPToken('GET', 'https://a/'),
          }
        } finally {
          for (const name of Object.keys(polluted)) delete Object.prototype[name]
        }
      })
      assert.deepEqual(outcome.error, {
        code: 'invalid-argument',
        retryable: false,
        cause: 'polluted',
        errors: false,
      })
      assert.deepEqual(outcome.plain, { code: 'internal', retryable: false, cause: 'polluted' })
      assert.deepEqual(outcome.expiries, ['session', 'recap:re'])
      assert.match(outcome.proof, /^[\w-]+\.[\w-]+\.[\w-]+$/)
      assert.equal(stub.forms().length, 1)
      assert.deepEqual(
        stub.requests().filter((request) => !/^(OPTIONS|GET|POST) \/attest$/.test(request)),
        [],
      )
    })

    test('does not see what the SDK sends, fails with or resolves to', async () => {
      const seen = await run(async () => {
        const { Approov } = await import('/approov.js')
        await Approov.initializeSession(options)
        const seen = []
        const names = ['headers', 'body', 'method', 'DPoP', 'content-type', 'session', 'recap:re', 'cause', 'errors']
        names.push('code', 'message', 'class', 'retryable', 'approovHost', 'approovSiteKey', 'keyStorage')
        for (const name of names) {
          const set = (value) => seen.push([name, String(value)])
          Object.defineProperty(Object.prototype, name, { set, get: () => undefined, configurable: true })
        }
        try {
          await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
          await Approov.getExpiries()
          await rejection(Approov.fetchToken('', {}))
          await Approov.initializeSession(options)
          return seen
        } finally {
          for (const name of names) delete Object.prototype[name]
        }
      })
      assert.deepEqual(seen, [])
    })
  })

  describe('built-ins that are replaced after the SDK was evaluated', () => {
    test('of WebCrypto, fetch and WebAssembly are not called', async () => {
      const called = await run(async () => {
        const { Approov } = await import('/approov.js')
        const called = []
        const undo = []
        const spy = (object, name) => {
          const real = object[name]
          object[name] = function (...args) {
            called.push(name)
            return new.target ? new real(...args) : real.apply(this, args)
          }
          undo.push(() => {
            object[name] = real
          })
        }
        for (const name of ['generateKey', 'exportKey', 'importKey', 'sign', 'digest'])
          spy(SubtleCrypto.prototype, name)
        spy(Crypto.prototype, 'getRandomValues')
        spy(globalThis, 'fetch')
        for (const name of ['compile', 'compileStreaming', 'instantiate', 'instantiateStreaming', 'Instance', 'Module'])
          if (WebAssembly[name]) spy(WebAssembly, name)
        try {
          for (const keyStorage of ['webcrypto', 'wasm']) {
            await Approov.initializeSession({ ...options, keyStorage })
            const token = await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
            await Approov.getDPoPToken('GET', 'https://a/', 'n', token)
            await Approov.messageSignature(new Uint8Array(5))
          }
          await crypto.subtle.digest('SHA-256', new Uint8Array(1))
        } finally {
          for (const work of undo) work()
        }
        return called
      })
      assert.deepEqual(called, ['digest'], 'the call of the test itself is noticed, and no other')
    })

    test('do not make a key that can be exported', async () => {
      const outcome = await run(async () => {
        const { Approov } = await import('/approov.js')
        // The one way to the key's handle: Object.prototype.then takes part when a promise is settled with an object.
        const pairs = []
        Object.defineProperty(Object.prototype, 'then', {
          configurable: true,
          get() {
            if (this?.privateKey) pairs.push(this)
          },
        })
        const { generateKey } = SubtleCrypto.prototype
        SubtleCrypto.prototype.generateKey = function (parameters, extractable, usages) {
          return generateKey.call(this, parameters, true, usages)
        }
        const { get } = Object.getOwnPropertyDescriptor(CryptoKey.prototype, 'extractable')
        Object.defineProperty(CryptoKey.prototype, 'extractable', { get: () => false, configurable: true })
        try {
          await Approov.initializeSession(options)
        } finally {
          delete (/** @type {any} */ (Object.prototype).then)
          SubtleCrypto.prototype.generateKey = generateKey
          Object.defineProperty(CryptoKey.prototype, 'extractable', { get, configurable: true })
        }
        const exported = (key) =>
          crypto.subtle.exportKey('pkcs8', key).then(
            () => 'exported',
            (error) => error.name,
          )
        return Promise.all(
          pairs.map(async ({ privateKey }) => [privateKey.extractable, privateKey.usages, await exported(privateKey)]),
        )
      })
      assert.deepEqual(outcome, [[false, ['sign'], 'InvalidAccessError']])
    })

    test('see nothing of the memory of the WebAssembly, which may hold the key', async () => {
      const { seen, control, proof } = await run(async () => {
        const { Approov } = await import('/approov.js')
        await Approov.initializeSession({ ...options, keyStorage: 'wasm' })

        const { apply, defineProperty, getOwnPropertyDescriptor, ownKeys } = Reflect
        const { isView } = ArrayBuffer
        const getterOf = (of, name) => getOwnPropertyDescriptor(of, name).get
        const bytes = Object.getPrototypeOf(Uint8Array.prototype)
        const bufferOf = [getterOf(bytes, 'buffer'), getterOf(DataView.prototype, 'buffer')]
        const lengthOf = getterOf(ArrayBuffer.prototype, 'byteLength')
        const attempt = (work) => {
          try {
            return work()
          } catch {
            return undefined
          }
        }
        /** Whether a value leads to a buffer as large as the memory, or to what has the memory. */
        const leads = (value) => {
          if (value === null || typeof value !== 'object') return false
          if (value instanceof WebAssembly.Memory || value instanceof WebAssembly.Instance) return true
          const buffer = isView(value)
            ? (attempt(() => apply(bufferOf[0], value, [])) ?? attempt(() => apply(bufferOf[1], value, [])))
            : value
          return (attempt(() => apply(lengthOf, buffer, [])) ?? 0) > 500_000
        }
        const seen = new Set()
        const undo = []
        const hook = (of, what) => {
          for (const name of ownKeys(of)) {
            const descriptor = getOwnPropertyDescriptor(of, name)
            if (!descriptor.configurable || name === 'constructor') continue
            const hooked = { ...descriptor }
            for (const kind of ['value', 'get', 'set']) {
              const real = descriptor[kind]
              if (typeof real !== 'function') continue
              const replacement = function (...args) {
                for (let i = 0; i < args.length; i++) if (leads(args[i])) seen.add(`${what}.${String(name)}`)
                if (leads(this)) seen.add(`${what}.${String(name)}`)
                return new.target ? new real(...args) : apply(real, this, args)
              }
              Object.setPrototypeOf(replacement, real)
              replacement.prototype = real.prototype
              hooked[kind] = replacement
            }
            if (attempt(() => defineProperty(of, name, hooked))) undo.push(() => defineProperty(of, name, descriptor))
          }
        }
        hook(bytes, '%TypedArray%')
        hook(Object.getPrototypeOf(Uint8Array), 'TypedArray')
        for (const name of [
          'Uint8Array',
          'DataView',
          'ArrayBuffer',
          'TextDecoder',
          'TextEncoder',
          'FinalizationRegistry',
          'Promise',
          'Function',
          'Map',
          'Set',
        ]) {
          hook(globalThis[name].prototype, name)
        }
        for (const name of ['Memory', 'Table', 'Instance', 'Module']) hook(WebAssembly[name].prototype, name)
        for (const name of ['Reflect', 'JSON', 'WebAssembly']) hook(globalThis[name], name)
        hook(Object, 'Object')
        for (const name of ['Uint8Array', 'DataView', 'TextDecoder', 'TextEncoder', 'Promise']) {
          const { [name]: real } = /** @type {any} */ (globalThis)
          globalThis[name] = new Proxy(real, {
            construct(target, args, newTarget) {
              for (const arg of args) if (leads(arg)) seen.add(`new ${name}`)
              return Reflect.construct(target, args, newTarget)
            },
          })
          undo.push(() => {
            globalThis[name] = real
          })
        }
        let proof
        let control
        try {
          // Hooks like these do see what goes through them.
          new DataView(new ArrayBuffer(1 << 20)).getInt8(0)
          new Uint8Array(new ArrayBuffer(1 << 20)).subarray(0, 1)
          control = [...seen].sort()
          seen.clear()
          for (let round = 0; round < 2; round++) {
            const token = await Approov.fetchToken('api.example.com', { recaptchaToken: 'r', payload: 'bünd' })
            proof = await Approov.getDPoPToken('POST', 'https://bücher.example/', { any: 'nonce' }, token, 'sig')
            await Approov.messageSignature(new Uint8Array(70_000))
            await Approov.getExpiries()
            await Approov.fetchToken('', {}).catch(() => {})
            await Approov.initializeSession({ keyStorage: 'wasm' })
          }
        } finally {
          for (const work of undo.reverse()) work()
        }
        return { seen: [...seen].sort(), control, proof }
      })
      assert.deepEqual(control, ['%TypedArray%.subarray', 'DataView.getInt8', 'new DataView', 'new Uint8Array'])
      assert.deepEqual(seen, [])
      assert.match(proof, /^[\w-]+\.[\w-]+\.[\w-]{86}$/)
    })
  })

  test('built-ins that subclasses have replaced before, as monitoring scripts do, still serve', async () => {
    const token = await run(async () => {
      const { Instance, Memory, Table } = WebAssembly
      const { CryptoKey } = globalThis
      WebAssembly.Instance = class extends Instance {}
      WebAssembly.Memory = class extends Memory {}
      WebAssembly.Table = class extends Table {}
      globalThis.CryptoKey = /** @type {any} */ (class extends /** @type {any} */ (CryptoKey) {})
      try {
        const { Approov } = await import('/approov.js?evaluated-after-subclasses')
        await Approov.initializeSession(options)
        return await Approov.fetchToken('api.example.com', { recaptchaToken: 'r' })
      } finally {
        Object.assign(WebAssembly, { Instance, Memory, Table })
        globalThis.CryptoKey = CryptoKey
      }
    })
    assert.match(token, /^token\./)
  })
})
