// The simulated scripts of the check services do in a page what the real ones do. No SDK here.
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { after, before, beforeEach, describe, test } from 'node:test'

import { serveSite, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'

/** The published keys of the simulators: service/src/dev/sim/keys.rs. */
const TURNSTILE = { siteKey: 'dev-turnstile-site-key', secret: 'dev-turnstile-secret-key' }
const FRIENDLY = { siteKey: 'dev-friendly-site-key', apiKey: 'dev-friendly-api-key' }
const ENTERPRISE = { siteKey: 'dev-recaptcha-enterprise-site-key', apiKey: 'dev-recaptcha-enterprise-api-key' }
const FINGERPRINT = { key: 'dev-fingerprint-public-api-key', secret: 'dev-fingerprint-secret-api-key' }

for (const engine of chosenEngines()) {
  describe(`simulated check services in ${ENGINES[engine].title}`, () => {
    let browser, service, site, sim
    before(async () => {
      site = await serveSite({ mounts: { '/': fileURLToPath(new URL('../pages', import.meta.url)) } })
      service = await startService()
      browser = await openBrowser(engine)
      sim = `${service.url}/sim`
    })
    after(async () => {
      await browser?.close()
      await service?.stop()
      await site?.stop()
    })

    /** A new page, with what tests say about the scripts in it. */
    const open = async (query = '') => {
      await browser.webdriver.get(`${site.url}/blank.html${query}`)
      await browser.run(async () => {
        Object.assign(globalThis, {
          load: (src) =>
            new Promise((resolve, reject) => {
              const script = Object.assign(document.createElement('script'), { src, onload: resolve })
              script.onerror = () => reject(new Error('the script did not load'))
              document.head.append(script)
            }),
          add: (className, dataset = {}, parent = document.body) => {
            const element = document.createElement('div')
            element.className = className
            Object.assign(element.dataset, dataset)
            return parent.appendChild(element)
          },
          /** What a promise comes to: a value, what it rejects with, or nothing for a while. */
          comesTo: (promise, patience = 500) =>
            Promise.race([
              promise.then(
                (value) => ({ value }),
                (error) => ({ error: error instanceof Error ? { message: error.message, ...error } : error }),
              ),
              new Promise((resolve) => setTimeout(resolve, patience, 'nothing')),
            ]),
          until: async (holds) => {
            while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
          },
        })
      })
    }
    const run = (work, ...args) => browser.run(work, ...args)
    const post = async (path, headers, body) => {
      const response = await fetch(`${sim}${path}`, { method: 'POST', headers, body })
      return { status: response.status, body: await response.json() }
    }
    const json = { 'Content-Type': 'application/json' }
    beforeEach(() => open())

    describe('hCaptcha', () => {
      test('an element that a module adds is rendered when it is executed', async () => {
        const { value } = await run(async (script) => {
          await globalThis.load(script)
          globalThis.add('h-captcha', { size: 'invisible' })
          return globalThis.comesTo(globalThis.hcaptcha.execute({ async: true }))
        }, `${sim}/hcaptcha/1/api.js`)
        assert.match(value.response, /^sim-pass-/)
        assert.ok(value.key)
      })

      test('it rejects with strings, and calls back', async () => {
        const found = await run(async (script) => {
          await globalThis.load(script)
          const found = [await globalThis.comesTo(globalThis.hcaptcha.execute({ async: true }))]
          const calls = []
          const note = (name) => (value) => calls.push([name, value])
          const id = globalThis.hcaptcha.render(globalThis.add(''), {
            size: 'invisible',
            'error-callback': note('error'),
            'chalexpired-callback': note('expired'),
            'close-callback': note('closed'),
            'open-callback': note('opened'),
          })
          found.push(await globalThis.comesTo(globalThis.hcaptcha.execute('another', { async: true })))
          for (const outcome of ['timeout', 'reject', 'reject:challenge-closed', 'reject:rate-limited', 'never']) {
            globalThis.approovSim = { outcome }
            found.push(await globalThis.comesTo(globalThis.hcaptcha.execute(id, { async: true })))
          }
          const pending = globalThis.hcaptcha.execute(id, { async: true })
          await new Promise((resolve) => setTimeout(resolve, 50))
          globalThis.hcaptcha.close(id)
          found.push(await globalThis.comesTo(pending))
          return { found, calls: calls.filter(([name]) => name !== 'opened').map(String) }
        }, `${sim}/hcaptcha/1/api.js?render=explicit`)
        assert.deepEqual(found.found, [
          { error: 'missing-captcha' },
          { error: 'invalid-captcha-id' },
          { error: 'challenge-expired' },
          { error: 'challenge-error' },
          { error: 'challenge-closed' },
          { error: 'rate-limited' },
          'nothing',
          { error: 'challenge-closed' },
        ])
        // The one before was closed along with it.
        assert.deepEqual(found.calls, [
          'expired,',
          'error,challenge-error',
          'closed,',
          'error,rate-limited',
          'closed,',
          'closed,',
        ])
      })

      test('its form field, its state and its widgets follow its calls', async () => {
        const found = await run(async (script) => {
          await globalThis.load(script)
          const { hcaptcha } = /** @type {any} */ (globalThis)
          const form = document.body.appendChild(document.createElement('form'))
          const solved = new Promise((resolve) => (globalThis.solved = resolve))
          const element = globalThis.add('h-captcha', { callback: 'solved' }, form)
          await new Promise((resolve) => setTimeout(resolve))
          form.querySelector('button').click()
          const response = await solved
          const fields = () => Object.fromEntries(new FormData(form))
          const before = { response, fields: fields(), read: hcaptcha.getResponse(), key: hcaptcha.getRespKey() !== '' }
          hcaptcha.reset()
          const after = { fields: fields(), read: hcaptcha.getResponse() }
          hcaptcha.remove(element.dataset.hcaptchaWidgetId)
          return { before, after, left: element.children.length }
        }, `${sim}/hcaptcha/1/api.js?recaptchacompat=off`)
        const { before, after, left } = found
        assert.deepEqual(before.fields, { 'h-captcha-response': before.response })
        assert.deepEqual([before.read, before.key], [before.response, true])
        assert.deepEqual(after, { fields: { 'h-captcha-response': '' }, read: '' })
        assert.equal(left, 0)
      })
    })

    test('an outcome is chosen by the page, its URL, the URL of the script, or the site key', async () => {
      const outcomeOf = (src, siteKey) =>
        run(
          async (src, sitekey) => {
            await globalThis.load(src)
            const id = globalThis.hcaptcha.render(globalThis.add(''), { size: 'invisible', sitekey })
            const { response } = await globalThis.hcaptcha.execute(id, { async: true })
            globalThis.approovSim = { outcome: 'bot' }
            const second = await globalThis.hcaptcha.execute(id, { async: true })
            return [response, second.response].map((response) => response.split('-')[1])
          },
          src,
          siteKey,
        )
      const script = `${sim}/hcaptcha/1/api.js?render=explicit`
      assert.deepEqual(await outcomeOf(script, 'key'), ['pass', 'bot'])
      await open()
      assert.deepEqual(await outcomeOf(script, 'key-sim-low-score'), ['low', 'bot'])
      await open()
      assert.deepEqual(await outcomeOf(`${script}&approov-sim=expired`, 'key-sim-low-score'), ['expired', 'bot'])
      await open('?approov-sim=fail')
      assert.deepEqual(await outcomeOf(`${script}&approov-sim=expired`, 'key-sim-low-score'), ['fail', 'bot'])
    })

    test('a blocked script fails to load, or does nothing', async () => {
      for (const path of ['hcaptcha/1/api.js', 'recaptcha/api.js', 'turnstile/v0/api.js', 'friendly/site.js']) {
        await open()
        const blocked = await run(
          (src) => globalThis.comesTo(globalThis.load(src), 60_000),
          `${sim}/${path}?approov-sim=script-blocked`,
        )
        assert.equal(blocked.error.message, 'the script did not load')
        const names = await run(async (src) => {
          globalThis.approovSim = { outcome: 'script-blocked' }
          await globalThis.load(src)
          return ['hcaptcha', 'grecaptcha', 'turnstile', 'frcaptcha'].filter((name) => name in globalThis)
        }, `${sim}/${path}`)
        assert.deepEqual(names, [], path)
      }
      for (const version of ['v3', 'v4']) {
        const blocked = await run(
          (src) => globalThis.comesTo(import(src), 60_000),
          `${sim}/fingerprint/${version}/${FINGERPRINT.key}-sim-script-blocked`,
        )
        assert.ok(blocked.error, version)
      }
    })

    describe('reCAPTCHA', () => {
      test('Enterprise has tokens for actions and stands beside the other', async () => {
        const found = await run(
          async (classic, enterprise, key) => {
            await globalThis.load(classic)
            await globalThis.load(enterprise)
            const { grecaptcha } = globalThis
            await new Promise((resolve) => grecaptcha.enterprise.ready(resolve))
            const token = await grecaptcha.enterprise.execute(key, { action: 'login' })
            const widget = grecaptcha.enterprise.render(globalThis.add(''), { sitekey: key })
            document.querySelector('button').click()
            await globalThis.until(() => grecaptcha.enterprise.getResponse(widget))
            const response = grecaptcha.enterprise.getResponse(widget)
            grecaptcha.enterprise.reset(widget)
            const failures = []
            for (const outcome of ['timeout', 'reject', 'never']) {
              globalThis.approovSim = { outcome }
              failures.push(await globalThis.comesTo(grecaptcha.enterprise.execute(key, { action: 'login' })))
            }
            return {
              token,
              response,
              reset: grecaptcha.enterprise.getResponse(widget),
              failures,
              classic: typeof grecaptcha.execute,
            }
          },
          `${sim}/recaptcha/api.js?render=explicit`,
          `${sim}/recaptcha/enterprise.js?render=${ENTERPRISE.siteKey}`,
          ENTERPRISE.siteKey,
        )
        assert.match(found.response, /^sim-pass-/)
        assert.deepEqual([found.reset, found.classic], ['', 'function'])
        assert.deepEqual(found.failures, [{ error: 'Timeout' }, { error: null }, 'nothing'])
        const { body } = await post(
          `/recaptcha-enterprise/v1/projects/dev-project/assessments?key=${ENTERPRISE.apiKey}`,
          json,
          JSON.stringify({ event: { token: found.token, siteKey: ENTERPRISE.siteKey, expectedAction: 'login' } }),
        )
        assert.equal(body.tokenProperties.valid, true)
        assert.deepEqual([body.tokenProperties.action, body.tokenProperties.hostname], ['login', '127.0.0.1'])
      })
    })

    describe('Turnstile', () => {
      test('an element is rendered, its form gets the token, and the server knows what it was made for', async () => {
        const fields = await run(
          async (src, sitekey) => {
            const form = document.body.appendChild(document.createElement('form'))
            const done = new Promise((resolve) => (globalThis.done = resolve))
            globalThis.add('cf-turnstile', { sitekey, action: 'login', cdata: 'order-1', callback: 'done' }, form)
            await globalThis.load(src)
            await done
            return Object.fromEntries(new FormData(form))
          },
          `${sim}/turnstile/v0/api.js`,
          TURNSTILE.siteKey,
        )
        const form = new URLSearchParams({ secret: TURNSTILE.secret, response: fields['cf-turnstile-response'] })
        const { body } = await post('/turnstile/v0/siteverify', {}, form)
        assert.deepEqual(
          [body.success, body.hostname, body.action, body.cdata],
          [true, '127.0.0.1', 'login', 'order-1'],
        )
      })

      test('its calls and callbacks are those of the real one', async () => {
        const found = await run(
          async (src, sitekey) => {
            await globalThis.load(src)
            const { turnstile } = /** @type {any} */ (globalThis)
            await new Promise((resolve) => turnstile.ready(resolve))
            const calls = []
            const options = (more) => ({
              sitekey,
              callback: () => calls.push('token'),
              'error-callback': (code) => calls.push(code),
              'expired-callback': () => calls.push('expired'),
              'timeout-callback': () => calls.push('timeout'),
              'refresh-expired': 'never',
              retry: 'never',
              ...more,
            })
            const rest = () => new Promise((resolve) => setTimeout(resolve, 50))
            const element = globalThis.add('')
            const id = turnstile.render(element, options({ execution: 'execute' }))
            const before = turnstile.getResponse(id) ?? 'none'
            turnstile.execute(element)
            await rest()
            const token = turnstile.getResponse(id)
            const again = turnstile.render(element, options({})) ?? 'refused'
            for (const outcome of ['bot', 'reject:110200', 'timeout', 'never']) {
              globalThis.approovSim = { outcome }
              turnstile.reset(id)
              turnstile.execute(id)
              await rest()
            }
            turnstile.remove(id)
            globalThis.approovSim = { lifetime: 20 }
            const short = turnstile.render(globalThis.add(''), options({}))
            await globalThis.until(() => turnstile.isExpired(short))
            turnstile.remove(short)
            globalThis.approovSim = undefined
            const action = turnstile.render(globalThis.add(''), options({ action: 'not allowed' }))
            await rest()
            turnstile.remove(action)
            return { before, token, again, calls }
          },
          `${sim}/turnstile/v0/api.js?render=explicit`,
          TURNSTILE.siteKey,
        )
        assert.match(found.token, /^sim-pass-/)
        assert.deepEqual([found.before, found.again], ['none', 'refused'])
        assert.deepEqual(found.calls, ['token', '600010', '110200', 'timeout', 'token', 'expired', '110420'])
      })

      test('test keys that Cloudflare publishes do what they are for', async () => {
        const found = await run(async (src) => {
          await globalThis.load(src)
          const ends = (sitekey) =>
            new Promise((resolve) =>
              globalThis.turnstile.render(globalThis.add(''), {
                sitekey,
                retry: 'never',
                callback: resolve,
                'error-callback': resolve,
                'before-interactive-callback': () => setTimeout(() => document.querySelector('button').click()),
              }),
            )
          const keys = ['1x00000000000000000000AA', '2x00000000000000000000AB', '3x00000000000000000000FF']
          return Promise.all(keys.map(ends))
        }, `${sim}/turnstile/v0/api.js?render=explicit`)
        assert.deepEqual(found, ['XXXX.DUMMY.TOKEN.XXXX', '600010', 'XXXX.DUMMY.TOKEN.XXXX'])
      })
    })

    test('Friendly Captcha tells what happens by events, and puts its response into the form', async () => {
      const found = await run(
        async (src, sitekey) => {
          const form = document.body.appendChild(document.createElement('form'))
          const element = globalThis.add('frc-captcha', { sitekey, start: 'auto' }, form)
          const events = []
          for (const name of ['complete', 'error', 'expire', 'reset'])
            form.addEventListener(`frc:widget.${name}`, (/** @type {any} */ { detail }) =>
              events.push([name, detail.state].join()),
            )
          const states = []
          form.addEventListener('frc:widget.statechange', (/** @type {any} */ { detail }) => states.push(detail.state))
          await globalThis.load(src)
          const [widget] = globalThis.frcaptcha.getAllWidgets()
          await globalThis.until(() => widget.getState() === 'completed')
          const response = new FormData(form).get('frc-captcha-response')
          const first = [...states]
          for (const [outcome, state] of Object.entries({ reject: 'error', timeout: 'expired', never: 'verifying' })) {
            globalThis.approovSim = { outcome }
            widget.reset()
            await globalThis.until(() => widget.getState() === state)
          }
          const field = new FormData(form).get('frc-captcha-response')
          widget.destroy()
          return { response, first, events, field, state: widget.getState(), left: element.children.length }
        },
        `${sim}/friendly/site.js`,
        FRIENDLY.siteKey,
      )
      assert.deepEqual(found.first, ['unactivated', 'requesting', 'solving', 'verifying', 'completed'])
      assert.deepEqual(found.events, [
        'complete,completed',
        'reset,reset',
        'error,error',
        'reset,reset',
        'expire,expired',
        'reset,reset',
      ])
      assert.deepEqual([found.field, found.state, found.left], ['.VERIFYING', 'destroyed', 0])
      const { body } = await post(
        '/friendly/api/v2/captcha/siteverify',
        { ...json, 'X-API-Key': FRIENDLY.apiKey },
        JSON.stringify({ response: found.response, sitekey: FRIENDLY.siteKey }),
      )
      assert.deepEqual([body.success, body.data.challenge.origin], [true, '127.0.0.1'])
    })

    test('Fingerprint gives an event of this page, sealed, and errors with codes', async () => {
      const found = await run(async (src) => {
        const Fingerprint = await import(src)
        const agent = Fingerprint.start({})
        const result = await agent.get({ tag: 'nonce', linkedId: 'user' })
        const failures = []
        for (const outcome of ['timeout', 'reject', 'reject:csp_block', 'never']) {
          globalThis.approovSim = { outcome }
          failures.push(await globalThis.comesTo(agent.get()))
        }
        const { event_id, visitor_id, sealed_result } = result
        const sealed = sealed_result.base64()
        const isSame = sealed_result.byteArray().length === atob(sealed).length
        return {
          event_id,
          visitor_id,
          sealed,
          isSame,
          failures,
          isDefault: Fingerprint.default.start === Fingerprint.start,
        }
      }, `${sim}/fingerprint/v4/${FINGERPRINT.key}`)
      assert.match(found.sealed, /^noXc7/)
      assert.deepEqual([found.isSame, found.isDefault], [true, true])
      const codes = found.failures.map((failure) => failure.error?.code ?? failure)
      assert.deepEqual(codes, ['client_timeout', 'network_connection', 'csp_block', 'nothing'])
      const headers = { Authorization: `Bearer ${FINGERPRINT.secret}` }
      const event = await (await fetch(`${sim}/fingerprint/v4/events/${found.event_id}`, { headers })).json()
      assert.equal(event.identification.visitor_id, found.visitor_id)
      assert.deepEqual([event.url, event.tags, event.linked_id], [`${site.url}/blank.html`, { tag: 'nonce' }, 'user'])
    })

    test('a request ID of the agent v3 is looked up by either interface', async () => {
      const { visitorId, requestId } = await run(async (src) => {
        const agent = await (await import(src)).load()
        return agent.get()
      }, `${sim}/fingerprint/v3/${FINGERPRINT.key}`)
      const ask = async (path, headers) => (await fetch(`${sim}/fingerprint/${path}`, { headers })).json()
      const bearer = { Authorization: `Bearer ${FINGERPRINT.secret}` }
      const event = await ask(`v4/events/${requestId}`, bearer)
      const visits = await ask(`visitors/${visitorId}?request_id=${requestId}`, { 'Auth-API-Key': FINGERPRINT.secret })
      assert.equal(event.identification.visitor_id, visitorId)
      assert.deepEqual([visits.visits[0].requestId, visits.visits[0].timestamp], [requestId, event.timestamp])
    })
  })
}
