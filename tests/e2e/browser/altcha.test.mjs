// The check that is built in: a token without any script of anybody else, and the official packages of ALTCHA on the other side.
import assert from 'node:assert/strict'
import { hkdfSync } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { after, before, describe, test } from 'node:test'

import { solveChallenge, verifySolution } from 'altcha-lib'
import { deriveKey } from 'altcha-lib/algorithms/pbkdf2'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { logComplete, startWorld } from '../harness/world.mjs'

const SESSION_SECRET = Buffer.alloc(32, 7)

/** The secret with which the service signs challenges of a site (docs/PROTOCOL.md). */
function signingSecret(site) {
  const derive = (secret, purpose) => Buffer.from(hkdfSync('sha256', secret, 'approov-web-service', purpose, 32))
  return derive(derive(SESSION_SECRET, 'approov-web-service altcha v1'), `site ${site}`).toString('base64url')
}

const payloadOf = (form) => JSON.parse(atob(new URLSearchParams(form).get('altcha-payload')))

for (const engine of chosenEngines()) {
  describe(`ALTCHA in ${ENGINES[engine].title}`, () => {
    let world
    let options
    before(async () => {
      const widget = fileURLToPath(new URL('../node_modules/altcha/dist/main/altcha.min.js', import.meta.url))
      world = await startWorld(engine, {
        serviceArgs: ['--session-secret', SESSION_SECRET.toString('base64')],
        mounts: { '/altcha.js': widget },
      })
      const { approovHost, approovSiteKey } = world.settings
      options = { approovHost, approovSiteKey, altchaSiteKey: world.service.account.altcha_site_key }
    })
    after(() => world?.stop())

    const attestRequests = async (since) => {
      await logComplete(world.service)
      const entries = world.service.log.slice(since).filter(({ path }) => path === '/attest')
      return entries.map(({ method, status }) => `${method} ${status}`)
    }

    test('a page with no check script gets a token that opens the API', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const { status, body, token, expiries } = await world.run(
        async (settings, options) => {
          const { Approov } = await import('/approov.js')
          const { callApi, PATIENCE } = await import('/flow.js')
          await Approov.initializeSession(options)
          const token = await Approov.fetchToken(settings.api, { timeout: PATIENCE })
          const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
          return { ...(await callApi(settings, { token, proof })), token, expiries: await Approov.getExpiries() }
        },
        world.settings,
        options,
      )
      assert.equal(status, 200, JSON.stringify(body))
      assert.equal(body.proof.accepted, true)
      const { embed } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString())
      assert.deepEqual(Object.keys(embed), [`altcha:${options.altchaSiteKey}`])
      assert.ok(expiries[`altcha:${options.altchaSiteKey}`] > Date.now())
      // A Firefox that has just started may ask for the second request's permission again: see requests.test.mjs.
      const requests = (await attestRequests(begin)).filter(
        (request) => engine !== 'firefox' || request !== 'OPTIONS 204',
      )
      assert.deepEqual(requests, [...(engine === 'firefox' ? [] : ['OPTIONS 204']), 'GET 200', 'POST 200'])
    })

    test('where it is the only check, fetchToken itself begins a session anew that has ended; next to another it does not', async () => {
      for (const more of [{}, { hcaptchaSiteKey: world.service.account.hcaptcha_site_key }]) {
        await world.freshPage()
        const [first, second, ended] = await world.run(
          async (settings, options) => {
            const own = globalThis.fetch
            let isRefused = false
            globalThis.fetch = async (url, init) => {
              if (!isRefused || !String(init?.body).includes('refresh-token')) return own(url, init)
              const headers = { 'content-type': 'application/json' }
              return new Response('{"aprv-invalid-refresh-token":""}', { status: 401, headers })
            }
            const { Approov } = await import('/approov.js')
            const { PATIENCE } = await import('/flow.js')
            const ended = []
            Approov.on('sessionend', ({ code }) => ended.push(code))
            await Approov.initializeSession(options)
            const first = await Approov.fetchToken(settings.api, { altchaPayload: true, timeout: PATIENCE })
            isRefused = true
            const second = await Approov.fetchToken('api.example.com', { timeout: PATIENCE }).catch(
              (error) => error.code,
            )
            return [first, second, ended]
          },
          world.settings,
          { ...options, ...more },
        )
        assert.equal(first.split('.').length, 3)
        assert.deepEqual(ended, ['session-expired'])
        if (more.hcaptchaSiteKey) assert.equal(second, 'session-expired')
        else assert.equal(second.split('.').length, 3)
      }
    })

    test('many calls at once solve one challenge, and the next session another', async () => {
      await world.freshPage()
      const begin = await logComplete(world.service)
      const tokens = await world.run(
        async (settings, options) => {
          const { Approov } = await import('/approov.js')
          const { PATIENCE } = await import('/flow.js')
          const tokens = []
          for (let session = 0; session < 2; session++) {
            await Approov.initializeSession(options)
            const calls = Array.from({ length: 50 }, () => Approov.fetchToken(settings.api, { timeout: PATIENCE }))
            tokens.push(...(await Promise.all(calls)))
          }
          return tokens
        },
        world.settings,
        options,
      )
      assert.equal(new Set(tokens).size, 2)
      assert.equal((await attestRequests(begin)).filter((request) => request === 'POST 200').length, 2)
    })

    test('it travels with the result of a captcha where the call says so', async () => {
      await world.freshPage()
      const token = await world.run(
        async (settings, options) => {
          const { Approov } = await import('/approov.js')
          const { passCheck } = await import('/flow.js')
          await Approov.initializeSession({ ...options, ...settings.keys.hcaptcha })
          return Approov.fetchToken(settings.api, { ...(await passCheck(settings, 'hcaptcha')), altchaPayload: true })
        },
        world.settings,
        options,
      )
      const { embed } = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString())
      assert.equal(Object.keys(embed).length, 2)
    })

    test('a solution by the official library passes, and the official library accepts ours', async () => {
      await world.freshPage()
      const forms = await world.run(
        async (settings, options) => {
          const forms = []
          const { fetch } = globalThis
          globalThis.fetch = (url, init) => {
            if (init?.body) forms.push(String(init.body))
            return fetch(url, init)
          }
          const { Approov } = await import('/approov.js')
          await Approov.initializeSession(options)
          await Approov.fetchToken(settings.api, { timeout: 120_000 })
          return forms
        },
        world.settings,
        options,
      )
      assert.equal(forms.length, 1)
      const { challenge, solution } = payloadOf(forms[0])
      const { site } = challenge.parameters.data
      const verified = await verifySolution({
        challenge,
        solution,
        deriveKey,
        hmacSignatureSecret: signingSecret(site),
      })
      assert.equal(verified.verified, true, JSON.stringify(verified))

      const query = new URLSearchParams({ 'site-key': options.altchaSiteKey })
      const fresh = await (await fetch(`${world.service.url}/altcha?${query}`)).json()
      const solved = await solveChallenge({ challenge: fresh, deriveKey })
      const payload = btoa(JSON.stringify({ challenge: fresh, solution: solved }))
      await world.freshPage()
      const token = await world.run(
        async (settings, options, altchaPayload) => {
          const { Approov } = await import('/approov.js')
          await Approov.initializeSession(options)
          return Approov.fetchToken(settings.api, { altchaPayload, timeout: 120_000 })
        },
        world.settings,
        options,
        payload,
      )
      assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })

    test('the payload of the official widget passes', async () => {
      await world.freshPage()
      const token = await world.run(
        async (settings, options) => {
          const { Approov } = await import('/approov.js')
          await import(/** @type {any} */ ('/altcha.js'))
          await Approov.initializeSession(options)
          const url = new URL('/altcha', options.approovHost)
          url.searchParams.set('site-key', options.altchaSiteKey)
          const widget = document.createElement('altcha-widget')
          widget.setAttribute('challenge', url.href)
          widget.setAttribute('auto', 'onload')
          widget.setAttribute('configuration', JSON.stringify({ humanInteractionSignature: false, minDuration: 0 }))
          const payload = new Promise((resolve, reject) => {
            widget.addEventListener('verified', (event) => resolve(/** @type {any} */ (event).detail.payload))
            widget.addEventListener('statechange', (event) => {
              const { state } = /** @type {any} */ (event).detail
              if (state === 'error') reject(new Error('the widget failed'))
            })
          })
          document.body.append(widget)
          return Approov.fetchToken(settings.api, { altchaPayload: await payload, timeout: 120_000 })
        },
        world.settings,
        options,
      )
      assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
    })

    test('an abort ends the work, and a service that offers none is named', async () => {
      await world.freshPage()
      const [aborted, none] = await world.run(
        async (settings, options) => {
          const { Approov } = await import('/approov.js')
          const { rejection } = await import('/flow.js')
          await Approov.initializeSession(options)
          const controller = new AbortController()
          const call = Approov.fetchToken(settings.api, { signal: controller.signal })
          controller.abort()
          const aborted = await rejection(call)
          await Approov.initializeSession({ ...options, altchaSiteKey: 'nobody' })
          return [aborted.code, (await rejection(Approov.fetchToken(settings.api))).message]
        },
        world.settings,
        options,
      )
      assert.equal(aborted, 'aborted')
      assert.match(none, /offers no ALTCHA challenge/)
    })
  })
}
