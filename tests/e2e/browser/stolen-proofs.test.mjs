// What a thief of tokens and proofs gets from the protected API: nothing.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`stolen proofs in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    /**
     * On a fresh page with a good token: `attack` gets what a page has and returns the statuses of the calls it made.
     */
    const statuses = async (attack) => {
      await world.freshPage()
      return world.run(
        async (settings, attack) => {
          const { Approov } = await import('/approov.js')
          const { callApi, firstToken, sessionOptions } = await import('/flow.js')
          const token = await firstToken(settings, 'recaptcha')
          const call = async (request) => (await callApi(settings, { token, ...request })).status
          const prove = (method = 'GET', url = settings.apiUrl, of = token) =>
            Approov.getDPoPToken(method, url, crypto.randomUUID(), of)
          return new Function(`return ${attack}`)()({ Approov, settings, token, call, prove, sessionOptions })
        },
        world.settings,
        String(attack),
      )
    }

    test('a proof is accepted once and refused when it is replayed', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove }) => {
          const proof = await prove()
          return [await call({ proof }), await call({ proof })]
        }),
        [200, 401],
      )
    })

    test('a token without a proof is refused', async () => {
      assert.deepEqual(await statuses(async ({ call }) => [await call({})]), [401])
    })

    test('a proof without a token is refused', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove }) => [await call({ token: '', proof: await prove() })]),
        [401],
      )
    })

    test('a proof for another method is refused', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove }) => [
          await call({ proof: await prove('POST') }),
          await call({ proof: await prove('POST'), method: 'POST' }),
        ]),
        [401, 200],
      )
    })

    test('a proof for another address is refused', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove, settings }) => [
          await call({ proof: await prove('GET', `${settings.apiUrl}/other`) }),
          await call({ proof: await prove('GET', settings.apiUrl.replace('127.0.0.1', 'localhost')) }),
          await call({ proof: await prove('GET', `${settings.apiUrl}?query=ignored`) }),
        ]),
        [401, 401, 200],
      )
    })

    test('a proof for another token is refused', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove, settings }) => [
          await call({ proof: await prove('GET', settings.apiUrl, 'another token') }),
        ]),
        [401],
      )
    })

    test("a token is refused with another session's proof", async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove, settings, token, sessionOptions }) => {
          const own = await call({ proof: await prove() })
          // Another copy of the SDK does not know the token; the one that got it would refuse to make such a proof.
          const { Approov } = await import('/approov.js?another-copy')
          await Approov.initializeSession(sessionOptions(settings, 'recaptcha'))
          const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
          return [own, await call({ proof })]
        }),
        [200, 401],
      )
    })

    test('a forged proof is refused', async () => {
      assert.deepEqual(
        await statuses(async ({ call, prove }) => {
          const [header, claims, signature] = (await prove()).split('.')
          const encode = (value) =>
            btoa(JSON.stringify(value)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
          const decode = (part) => JSON.parse(atob(part.replaceAll('-', '+').replaceAll('_', '/')))
          const changed = encode({ ...decode(claims), jti: 'another' })
          const unsigned = encode({ ...decode(header), alg: 'none' })
          const { publicKey, privateKey } = await crypto.subtle.generateKey(
            { name: 'ECDSA', namedCurve: 'P-256' },
            true,
            ['sign'],
          )
          const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', publicKey)
          const input = `${encode({ ...decode(header), jwk: { kty, crv, x, y } })}.${claims}`
          const bytes = new Uint8Array(
            await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, privateKey, new TextEncoder().encode(input)),
          )
          const ownSignature = btoa(String.fromCharCode(...bytes))
            .replaceAll('+', '-')
            .replaceAll('/', '_')
            .replaceAll('=', '')
          return [
            await call({ proof: `${header}.${changed}.${signature}` }),
            await call({ proof: `${unsigned}.${claims}.` }),
            await call({ proof: `${input}.${ownSignature}` }), // well signed, by a key the token is not bound to
            await call({ proof: `${header}.${claims}.${signature}` }), // the untouched one still passes
          ]
        }),
        [401, 401, 401, 200],
      )
    })
  })
}
