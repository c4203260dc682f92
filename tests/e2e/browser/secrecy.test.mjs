// Nothing secret leaves the SDK: not by the key store, the console, storage, cookies, URLs or events.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import * as jose from 'jose'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`secrets in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    test('the WebCrypto key is made non-extractable, for signing alone, and only its public half is ever exported', async () => {
      await world.freshPage()
      const seen = await world.run(async (settings) => {
        const calls = []
        const keys = []
        const describe = (value) => {
          if (!(value instanceof CryptoKey))
            return value instanceof ArrayBuffer || ArrayBuffer.isView(value) ? 'bytes' : value
          keys.push(value)
          return `${value.type} key`
        }
        for (const name of Object.getOwnPropertyNames(SubtleCrypto.prototype)) {
          const real = SubtleCrypto.prototype[name]
          if (typeof real !== 'function' || name === 'constructor') continue
          SubtleCrypto.prototype[name] = async function (...args) {
            const result = await real.apply(this, args)
            if (result.privateKey) keys.push(result.privateKey)
            calls.push({ name, args: JSON.parse(JSON.stringify(args.map(describe))) })
            return result
          }
        }
        const { Approov } = await import('/approov.js')
        const { firstToken } = await import('/flow.js')
        const token = await firstToken(settings, 'hcaptcha')
        await Approov.getDPoPToken('GET', settings.apiUrl, 'n', token)
        await Approov.messageSignature(new Uint8Array([1]))
        const privateKeys = [...new Set(keys)].filter((key) => key.type === 'private')
        const refusals = await Promise.all(
          privateKeys.flatMap((key) =>
            ['jwk', 'pkcs8'].map((/** @type {any} */ format) =>
              crypto.subtle.exportKey(format, key).then(
                () => 'exported',
                (error) => error.name,
              ),
            ),
          ),
        )
        return {
          calls,
          privateKeys: privateKeys.map(({ extractable, usages, algorithm }) => ({ extractable, usages, algorithm })),
          refusals,
        }
      }, world.settings)
      assert.deepEqual(
        seen.privateKeys.map(({ extractable, usages, algorithm: { name, namedCurve } }) => ({
          extractable,
          usages,
          name,
          namedCurve,
        })),
        [{ extractable: false, usages: ['sign'], name: 'ECDSA', namedCurve: 'P-256' }],
      )
      assert.deepEqual(seen.refusals, ['InvalidAccessError', 'InvalidAccessError'])
      const made = seen.calls.filter(({ name }) => name === 'generateKey')
      assert.deepEqual(
        made.map(({ args }) => args),
        [[{ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']]],
      )
      const exported = seen.calls.filter(({ name }) => /export|wrap/i.test(name))
      assert.deepEqual(
        exported.slice(0, 1).map(({ name, args }) => [name, args[1]]),
        [['exportKey', 'public key']],
      )
      assert.equal(exported.filter(({ args }) => args[1] === 'public key').length, 1)
      assert.ok(seen.calls.filter(({ name }) => name === 'sign').length >= 4)
      for (const { name } of seen.calls) assert.ok(['generateKey', 'exportKey', 'sign'].includes(name), name)
    })

    for (const keyStorage of ['webcrypto', 'wasm']) {
      test(`a whole visit leaves nothing in console, storage, cookies, URLs, DOM or globals, ${keyStorage} key`, async () => {
        await world.freshPage()
        const [siteBegin, serviceBegin] = [world.site.requests.length, world.service.log.length]
        const left = await world.run(
          async (settings, keyStorage) => {
            const written = []
            for (const name of Object.keys(console)) {
              if (typeof console[name] === 'function')
                console[name] = (...args) => written.push(`console.${name}: ${args.map(String)}`)
            }
            addEventListener('unhandledrejection', (event) => written.push(`unhandled: ${event.reason}`))
            addEventListener('error', (event) => written.push(`error: ${event.message}`))
            const { fetch: realFetch } = globalThis
            const secrets = []
            const urls = []
            const credentials = []
            globalThis.fetch = async (url, init) => {
              urls.push(String(url))
              credentials.push(init?.credentials)
              const response = await realFetch(url, init)
              if (init?.method === 'POST') {
                const { tokens, 'refresh-token': refreshToken } = await response.clone().json()
                secrets.push(refreshToken, ...Object.values(tokens ?? {}))
                secrets.push(...new URLSearchParams(init.body).getAll('hcaptcha-token'))
              }
              return response
            }
            const flow = await import('/flow.js')
            const result = await flow.passCheck(settings, 'hcaptcha') // the simulator's script may add what it likes
            const globals = () => Object.getOwnPropertyNames(globalThis)
            const markup = document.documentElement.outerHTML
            const before = globals()
            const { Approov } = await import('/approov.js')
            await Approov.initializeSession(flow.sessionOptions(settings, 'hcaptcha', { keyStorage }))
            const token = await Approov.fetchToken(settings.api, result)
            await Approov.fetchToken('api.example.com', { timeout: flow.PATIENCE })
            secrets.push(await Approov.getDPoPToken('GET', settings.apiUrl, 'n', token), token)
            await Approov.messageSignature(new Uint8Array([1]))
            // Errors must not reveal them either.
            const errors = [
              await flow.rejection(Approov.fetchToken('unknown.example.org', { timeout: flow.PATIENCE })),
              await flow.rejection(
                Approov.fetchToken(
                  `${secrets[0]}/`,
                  /** @type {any} */ ({ hcaptchaToken: { response: 'very private', key: 5 } }),
                ),
              ),
              await flow.rejection(Approov.fetchToken('a', { recaptchaToken: 'very private' })),
            ]
            await Approov.initializeSession()
            globalThis.fetch = realFetch
            const stored = {
              cookie: document.cookie,
              local: { ...localStorage },
              session: { ...sessionStorage },
              databases: (await globalThis.indexedDB?.databases?.()) ?? [],
              caches: (await globalThis.caches?.keys()) ?? [],
              name: window.name,
              history: [history.length, history.state],
              location: location.href,
            }
            return {
              written,
              secrets,
              urls,
              credentials,
              stored,
              errors: errors.map((error) => error.message),
              isSameMarkup: document.documentElement.outerHTML === markup,
              newGlobals: globals().filter((name) => !before.includes(name)),
              entries: performance.getEntriesByType('resource').map((entry) => entry.name),
            }
          },
          world.settings,
          keyStorage,
        )
        assert.deepEqual(left.written, [])
        assert.equal(left.secrets.length >= 6, true, `${left.secrets.length} secrets`)
        assert.deepEqual([...new Set(left.urls)], [`${world.settings.approovHost}/attest`])
        assert.deepEqual([...new Set(left.credentials)], ['omit'])
        const { history, location, ...stored } = left.stored
        assert.deepEqual(stored, { cookie: '', local: {}, session: {}, databases: [], caches: [], name: '' })
        assert.equal(history[1], null)
        assert.equal(location, `${world.site.url}/blank.html`)
        assert.equal(left.isSameMarkup, true)
        assert.deepEqual(left.newGlobals, [])
        const visible = [
          ...left.entries,
          ...world.site.requests.slice(siteBegin),
          ...world.service.log.slice(serviceBegin).map(({ path }) => path),
          // The second error names the argument that is no domain, as given; the check result next to it is not reported.
          left.errors[0],
          left.errors[2],
        ].join('\n')
        for (const secret of [...left.secrets, 'very private'])
          assert.ok(!visible.includes(secret), 'a secret in a URL or message')
        assert.ok(!left.errors.join().includes('very private'))
        assert.ok(
          left.entries.every((entry) => !entry.includes('?') || entry.includes('/sim/')),
          left.entries.join(),
        )
        if (engine === 'chromium') {
          const logged = await world.webdriver.manage().logs().get('browser')
          // The browser itself notes responses of 400: the unknown API's, without what was sent.
          const text = logged.map((entry) => entry.message).join('\n')
          for (const secret of left.secrets) assert.ok(!text.includes(secret))
        }
      })

      test(`a message signature is the signature of a compact JWS by the proof's key, ${keyStorage} key`, async () => {
        await world.freshPage()
        const header = jose.base64url.encode('{"alg":"ES256"}')
        const messages = ['{"sub":"somebody"}', '', 'x'.repeat(100_000), 'é\u0000\u{1F600}']
        const { proof, signatures } = await world.run(
          async (settings, keyStorage, inputs) => {
            const { Approov } = await import('/approov.js')
            const { sessionOptions } = await import('/flow.js')
            await Approov.initializeSession(sessionOptions(settings, 'hcaptcha', { keyStorage }))
            const signatures = []
            for (const input of inputs)
              signatures.push([...new Uint8Array(await Approov.messageSignature(new TextEncoder().encode(input)))])
            return { proof: await Approov.getDPoPToken('POST', 'https://api.example.com/'), signatures }
          },
          world.settings,
          keyStorage,
          messages.map((message) => `${header}.${jose.base64url.encode(message)}`),
        )
        const { jwk } = jose.decodeProtectedHeader(proof)
        const key = await jose.importJWK(jwk, 'ES256')
        for (const [index, message] of messages.entries()) {
          const parts = [
            header,
            jose.base64url.encode(message),
            jose.base64url.encode(new Uint8Array(signatures[index])),
          ]
          const { payload } = await jose.compactVerify(parts.join('.'), key, { algorithms: ['ES256'] })
          assert.equal(new TextDecoder().decode(payload), message)
          parts[1] = jose.base64url.encode(`${message} `)
          await assert.rejects(jose.compactVerify(parts.join('.'), key), jose.errors.JWSSignatureVerificationFailed)
        }
      })
    }
  })
}
