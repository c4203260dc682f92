// Proofs and signatures as other people's code sees them: the npm packages jose and oauth4webapi, and WebCrypto in Node.
import assert from 'node:assert/strict'
import { createHash, randomUUID, webcrypto } from 'node:crypto'
import { after, before, describe, test } from 'node:test'

import * as jose from 'jose'
import * as oauth from 'oauth4webapi'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

const sha256 = (text) => createHash('sha256').update(text).digest('base64url')

for (const engine of chosenEngines()) {
  for (const keyStorage of ['webcrypto', 'wasm']) {
    describe(`jose and others, ${keyStorage} key, ${ENGINES[engine].title}`, () => {
      let world
      let begin
      before(async () => {
        world = await startWorld(engine)
        // The SDK's idea of the service's time is late by as long as the response took: `iat` is after this, not after the call.
        begin = Math.floor(Date.now() / 1000)
        await world.freshPage()
        await world.run(
          async (settings, keyStorage) => {
            const { Approov } = await import('/approov.js')
            const { passCheck, sessionOptions } = await import('/flow.js')
            await Approov.initializeSession(sessionOptions(settings, 'recaptcha', { keyStorage }))
            globalThis.token = await Approov.fetchToken(settings.api, await passCheck(settings, 'recaptcha'))
          },
          world.settings,
          keyStorage,
        )
      })
      after(() => world?.stop())

      /** A proof, made in the page. */
      const prove = (...args) =>
        world.run(
          async (/** @type {Parameters<typeof Approov.getDPoPToken>} */ ...args) =>
            (await import('/approov.js')).Approov.getDPoPToken(...args),
          ...args,
        )

      test('jose verifies a proof, and its claims are the requested ones', async () => {
        const nonce = { of: ['any', 'kind'], é: 1 }
        const proof = await prove(
          'PATCH',
          'https://api.example.com:443/a%20b?query#fragment',
          nonce,
          'a token',
          'a signature',
        )
        const { payload, protectedHeader } = await jose.jwtVerify(proof, jose.EmbeddedJWK, {
          typ: 'dpop+jwt',
          algorithms: ['ES256'],
        })
        assert.deepEqual(Object.keys(protectedHeader).sort(), ['alg', 'jwk', 'typ'])
        assert.deepEqual(Object.keys(protectedHeader.jwk).sort(), ['crv', 'kty', 'x', 'y'])
        const { iat, jti, ...claims } = payload
        assert.deepEqual(claims, {
          htm: 'PATCH',
          htu: 'https://api.example.com/a%20b',
          nonce,
          ath: sha256('a token'),
          msgs: 'a signature',
        })
        assert.ok(Number.isInteger(iat) && iat >= begin && iat <= Date.now() / 1000, `iat ${iat}`)
        assert.ok(Buffer.from(jti, 'base64url').length >= 16, `jti ${jti}`)
      })

      test('falsy arguments leave their claims out', async () => {
        const { payload } = await jose.jwtVerify(
          await prove('GET', 'https://api.example.com/', '', null, undefined),
          jose.EmbeddedJWK,
        )
        assert.deepEqual(Object.keys(payload).sort(), ['htm', 'htu', 'iat', 'jti'])
      })

      test("the token is bound to the proof's key: cnf.jkt is its thumbprint", async () => {
        const token = await world.run(() => globalThis.token)
        const { jwk } = jose.decodeProtectedHeader(await prove('GET', 'https://api.example.com/'))
        assert.equal(jose.decodeJwt(token).cnf.jkt, await jose.calculateJwkThumbprint(jwk))
      })

      test("jose verifies the token with the account's secret", async () => {
        const token = await world.run(() => globalThis.token)
        const secret = Buffer.from(world.service.account.secret, 'base64')
        const { payload, protectedHeader } = await jose.jwtVerify(token, secret, { algorithms: ['HS256'] })
        assert.equal(protectedHeader.kid, undefined)
        assert.equal(typeof payload.arc, 'string')
      })

      test('every proof has another jti', async () => {
        const proofs = await world.run(async () => {
          const { Approov } = await import('/approov.js')
          return Promise.all(Array.from({ length: 100 }, () => Approov.getDPoPToken('GET', 'https://api.example.com/')))
        })
        assert.equal(new Set(proofs.map((proof) => jose.decodeJwt(proof).jti)).size, 100)
      })

      test('proofs verify too where the browser has no toBase64', async () => {
        const proofs = await world.run(async () => {
          const { Approov } = await import('/approov.js')
          const { toBase64 } = Uint8Array.prototype
          delete Uint8Array.prototype.toBase64
          const proofs = await Promise.all(
            Array.from({ length: 20 }, () => Approov.getDPoPToken('GET', 'https://api.example.com/')),
          )
          if (toBase64) Uint8Array.prototype.toBase64 = toBase64
          return proofs
        })
        for (const proof of proofs)
          await jose.jwtVerify(proof, jose.EmbeddedJWK, { typ: 'dpop+jwt', algorithms: ['ES256'] })
      })

      test('oauth4webapi accepts a request with a proof', async () => {
        const url = 'https://api.example.com/shapes'
        const { jwk } = jose.decodeProtectedHeader(await prove('GET', url))
        // An access token of the kind oauth4webapi knows, bound to the session's key; its proof is the SDK's.
        const issuer = 'https://issuer.example.com'
        const { publicKey, privateKey } = await jose.generateKeyPair('ES256')
        const accessToken = await new jose.SignJWT({
          client_id: 'web',
          cnf: { jkt: await jose.calculateJwkThumbprint(jwk) },
        })
          .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: 'k' })
          .setIssuer(issuer)
          .setAudience('api')
          .setSubject('somebody')
          .setJti(randomUUID())
          .setIssuedAt()
          .setExpirationTime('1 minute')
          .sign(privateKey)
        const keys = { keys: [{ ...(await jose.exportJWK(publicKey)), kid: 'k', alg: 'ES256', use: 'sig' }] }
        const request = async (proof) =>
          new Request(url, { headers: { authorization: `DPoP ${accessToken}`, dpop: proof } })
        const accept = async (proof) =>
          oauth.validateJwtAccessToken({ issuer, jwks_uri: `${issuer}/keys` }, await request(proof), 'api', {
            requireDPoP: true,
            [oauth.customFetch]: async () => Response.json(keys),
          })
        const claims = await accept(await prove('GET', url, '', accessToken))
        assert.equal(claims.cnf.jkt, await jose.calculateJwkThumbprint(jwk))
        await assert.rejects(accept(await prove('POST', url, '', accessToken)))
        await assert.rejects(accept(await prove('GET', url, '', 'another token')))
      })

      test("WebCrypto verifies a message signature with the proof's key", async () => {
        const message = [0, 1, 2, 254, 255]
        const signature = await world.run(async (message) => {
          const { Approov } = await import('/approov.js')
          const signature = await Approov.messageSignature(new Uint8Array(message))
          if (!(signature instanceof ArrayBuffer)) throw new Error('not an ArrayBuffer')
          return Array.from(new Uint8Array(signature))
        }, message)
        assert.equal(signature.length, 64)
        const { jwk } = jose.decodeProtectedHeader(await prove('GET', 'https://api.example.com/'))
        const ecdsa = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
        const key = await webcrypto.subtle.importKey('jwk', jwk, ecdsa, false, ['verify'])
        const verify = (bytes) => webcrypto.subtle.verify(ecdsa, key, new Uint8Array(signature), new Uint8Array(bytes))
        assert.equal(await verify(message), true)
        assert.equal(await verify([...message, 0]), false)
      })
    })
  }
}
