// approov-web-sdk/checks against the simulated scripts of the check services: each to a token that opens the API, and what can go wrong.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, before, beforeEach, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

/** How each check is made in the page, of its simulator's address and its site key. */
const CHECKS = {
  hcaptcha: (checks, sim) => checks.hcaptcha({ url: `${sim}/hcaptcha/1/api.js?render=explicit&recaptchacompat=off` }),
  recaptcha: (checks, sim, key) => checks.recaptcha({ action: 'login', url: `${sim}/recaptcha/api.js?render=${key}` }),
  recaptchaEnterprise: (checks, sim, key) =>
    checks.recaptchaEnterprise({ action: 'login', url: `${sim}/recaptcha/enterprise.js?render=${key}` }),
  turnstile: (checks, sim) => checks.turnstile({ url: `${sim}/turnstile/v0/api.js?render=explicit` }),
  friendly: (checks, sim) => checks.friendlyCaptcha({ url: `${sim}/friendly/site.js` }),
  fingerprint: (checks, sim, key) => checks.fingerprint({ url: `${sim}/fingerprint/v4/${key}` }),
  altcha: (checks) => checks.altcha(),
}

for (const engine of chosenEngines()) {
  describe(`check loaders in ${ENGINES[engine].title}`, () => {
    let world
    /** Serves scripts as a test says. */
    let scripts
    let reply
    let requests
    before(async () => {
      world = await startWorld(engine, {
        routes: {
          '/trusted.html': () => withPolicy("require-trusted-types-for 'script'; trusted-types approov-checks"),
          // The simulator's script is not of this origin.
          '/nonce.html': () => withPolicy("script-src 'nonce-abc' 'wasm-unsafe-eval'"),
        },
      })
      scripts = createServer((request, response) => {
        requests.push(request.url)
        reply(response, requests.length)
      })
      await new Promise((resolve) => scripts.listen(0, '127.0.0.1', () => resolve(undefined)))
    })
    after(async () => {
      await world?.stop()
      await new Promise((resolve) => {
        scripts.close(resolve)
        scripts.closeAllConnections()
      })
    })

    /** A page under a content security policy that runs hCaptcha, and says by its title what came of it. */
    const withPolicy = (policy) => `<!doctype html><meta charset="utf-8"><title>running</title>
      <meta http-equiv="Content-Security-Policy" content="${policy}"><link rel="icon" href="data:,">
      <script type="module" nonce="abc">
        const { hcaptcha } = await import('/package/checks.js')
        const url = '${world.settings.simulators}/hcaptcha/1/api.js?render=explicit&recaptchacompat=off'
        const siteKey = '${world.settings.keys.hcaptcha.hcaptchaSiteKey}'
        hcaptcha({ url, siteKey })({}).then(() => (document.title = 'passed'), (error) => (document.title = String(error)))
      </script>`

    const open = async () => {
      await world.freshPage()
      await world.run(
        async (settings, source, own) => {
          const checks = await import('/package/checks.js')
          const makers = Object.fromEntries(Object.entries(source).map(([name, text]) => [name, globalThis.eval(text)]))
          globalThis.checks = checks
          globalThis.own = own
          globalThis.keysOf = (name) => settings.keys[name]
          globalThis.make = (name) => makers[name](checks, settings.simulators, Object.values(settings.keys[name])[0])
          globalThis.context = (name, signal = new AbortController().signal) => ({
            signal,
            reason: 'start',
            keys: settings.keys[name],
          })
          globalThis.codeOf = (promise) =>
            promise.then(
              () => 'passed',
              (error) =>
                [error.name, error.code, error.retryable, error.check].filter((part) => part !== undefined).join(' '),
            )
        },
        world.settings,
        Object.fromEntries(Object.entries(CHECKS).map(([name, make]) => [name, String(make)])),
        `http://127.0.0.1:${scripts.address().port}`,
      )
    }
    beforeEach(async () => {
      requests = []
      reply = (response) => response.writeHead(404).end()
      await open()
    })

    for (const name of Object.keys(CHECKS)) {
      test(`${name}: the token opens the API, twice, with one script`, async () => {
        const outcome = await world.run(
          async (settings, name) => {
            const { Approov } = await import('/package/index.js')
            const { approovHost, approovSiteKey, keys, apiUrl } = settings
            const apiFetch = Approov.createFetch({
              origins: [new URL(apiUrl).origin],
              session: { approovHost, approovSiteKey, ...keys[name] },
              renew: make(name),
            })
            const first = await apiFetch(apiUrl)
            await apiFetch.renew()
            const second = await apiFetch(apiUrl)
            return [
              first.status,
              second.status,
              document.head.querySelectorAll('script[src]').length,
              document.body.children.length,
            ]
          },
          world.settings,
          name,
        )
        const isLoaded = name !== 'altcha' && name !== 'fingerprint'
        assert.deepEqual(outcome, [200, 200, isLoaded ? 1 : 0, 0])
      })
    }

    /** What the outcomes of the simulators come to. */
    const ENDINGS = [
      ['hcaptcha', 'reject:challenge-closed', 'ApproovCheckError check-cancelled false hcaptcha'],
      ['hcaptcha', 'timeout', 'ApproovCheckError check-timeout true hcaptcha'],
      ['hcaptcha', 'reject:rate-limited', 'ApproovCheckError check-failed true hcaptcha'],
      ['hcaptcha', 'script-blocked', 'ApproovCheckError check-blocked true hcaptcha'],
      ['recaptcha', 'reject', 'ApproovCheckError check-failed true recaptcha'],
      ['recaptcha', 'timeout', 'ApproovCheckError check-timeout true recaptcha'],
      ['recaptchaEnterprise', 'reject', 'ApproovCheckError check-failed true recaptchaEnterprise'],
      ['turnstile', 'reject', 'ApproovCheckError check-failed true turnstile'],
      ['turnstile', 'bot', 'ApproovCheckError check-failed true turnstile'],
      ['turnstile', 'timeout', 'ApproovCheckError check-timeout true turnstile'],
      ['friendly', 'reject:sitekey_invalid', 'ApproovCheckError check-failed true friendlyCaptcha'],
      ['friendly', 'timeout', 'ApproovCheckError check-timeout true friendlyCaptcha'],
      ['fingerprint', 'reject:too_many_requests', 'ApproovCheckError check-failed true fingerprint'],
      ['fingerprint', 'timeout', 'ApproovCheckError check-timeout true fingerprint'],
    ]
    for (const [name, ending, expected] of ENDINGS) {
      test(`${name} that ends with ${ending}, and passes when it is tried again`, async () => {
        const codes = await world.run(
          async (name, ending) => {
            const check = make(name)
            globalThis.approovSim = { outcome: ending }
            const { setTimeout } = globalThis
            // Ten seconds for a script that does nothing are over at once.
            if (ending === 'script-blocked') {
              Object.assign(globalThis, {
                setTimeout: (work, delay, ...rest) => setTimeout(work, delay === 10_000 ? 300 : delay, ...rest),
              })
            }
            const first = await codeOf(check(context(name)))
            Object.assign(globalThis, { setTimeout })
            globalThis.approovSim = undefined
            return [first, await codeOf(check(context(name))), document.body.children.length]
          },
          name,
          ending,
        )
        assert.deepEqual(codes, [expected, 'passed', 0])
      })
    }

    test('the cause is what the vendor threw', async () => {
      const cause = await world.run(async () => {
        globalThis.approovSim = { outcome: 'reject:challenge-closed' }
        return make('hcaptcha')(context('hcaptcha')).catch((error) => error.cause)
      })
      assert.equal(cause, 'challenge-closed')
    })

    for (const name of ['hcaptcha', 'recaptcha', 'turnstile', 'friendly']) {
      test(`${name}: a script that fails to load once, then never responds, then is there`, async () => {
        reply = (response, count) => {
          if (count === 1) response.writeHead(503).end()
          // As good as never.
          else if (count === 2) setTimeout(() => response.destroy(), 600)
          else response.writeHead(200, { 'Content-Type': 'text/javascript' }).end('globalThis.answered = true')
        }
        const outcomes = await world.run(async (name) => {
          const options = { url: `${own}/${name}.js?x=1`, timeout: 300, siteKey: 'key', action: 'login' }
          const check = checks[name === 'friendly' ? 'friendlyCaptcha' : name](options)
          const first = await codeOf(check({}))
          const left = document.querySelectorAll('script[src]').length
          const second = await codeOf(check({}))
          // A browser has the next request for the same address wait for the one before.
          await new Promise((resolve) => setTimeout(resolve, 600))
          const third = await codeOf(check({}))
          return [first, left, second, third, globalThis.answered, document.querySelectorAll('script[src]').length]
        }, name)
        const title = name === 'friendly' ? 'friendlyCaptcha' : name
        const blocked = `ApproovCheckError check-blocked true ${title}`
        assert.deepEqual(outcomes, [blocked, 0, blocked, blocked, true, 0])
        // A browser may ask once more where a connection breaks.
        assert.ok(requests.length >= 3, `${requests}`)
      })
    }

    test('fingerprint: an agent that fails to load once is loaded again', async () => {
      const source = `${world.settings.simulators}/fingerprint/v4/${world.settings.keys.fingerprint.fingerprintPublicAPIKey}`
      reply = (response, count) =>
        response
          .writeHead(count === 1 ? 503 : 200, {
            'Content-Type': 'text/javascript',
            'Access-Control-Allow-Origin': '*',
            'Cache-Control': 'no-store',
          })
          .end(`export * from ${JSON.stringify(source)}`)
      const outcomes = await world.run(async () => {
        const check = checks.fingerprint({ url: `${own}/agent.js` })
        return [await codeOf(check(context('fingerprint'))), await codeOf(check(context('fingerprint')))]
      })
      assert.deepEqual(outcomes, ['ApproovCheckError check-blocked true fingerprint', 'passed'])
    })

    test('a script that is there, or that the page itself loads, is not loaded again', async () => {
      const counts = await world.run(async (settings) => {
        const url = `${settings.simulators}/hcaptcha/1/api.js`
        const script = document.createElement('script')
        script.src = `${url}?render=explicit&recaptchacompat=off&hl=en`
        document.head.append(script)
        const while_loading = await codeOf(make('hcaptcha')(context('hcaptcha')))
        const there = await codeOf(make('hcaptcha')(context('hcaptcha')))
        return [while_loading, there, document.querySelectorAll('script[src]').length]
      }, world.settings)
      assert.deepEqual(counts, ['passed', 'passed', 1])
    })

    test('a script of the page that failed is not waited for for ever', async () => {
      const counts = await world.run(async (settings) => {
        const script = document.createElement('script')
        script.src = `${own}/hcaptcha.js`
        document.head.append(script)
        await new Promise((resolve) => script.addEventListener('error', resolve))
        const check = checks.hcaptcha({ url: `${own}/hcaptcha.js`, timeout: 200, siteKey: 'key' })
        return [await codeOf(check({})), await codeOf(check({}))]
      }, world.settings)
      assert.deepEqual(counts, Array(2).fill('ApproovCheckError check-blocked true hcaptcha'))
      assert.ok(requests.length >= 2, `${requests}`)
    })

    test('reCAPTCHA and Enterprise, and hCaptcha, on one page', async () => {
      const codes = await world.run(async () => {
        const names = ['hcaptcha', 'recaptcha', 'recaptchaEnterprise', 'recaptcha']
        const codes = []
        for (const name of names) codes.push(await codeOf(make(name)(context(name))))
        return codes
      })
      assert.deepEqual(codes, Array(4).fill('passed'))
    })

    test('runs of one check come one after the other, and each has a result of its own', async () => {
      const [results, most] = await world.run(async () => {
        const check = make('turnstile')
        let most = 0
        new MutationObserver(() => (most = Math.max(most, document.body.children.length))).observe(document.body, {
          childList: true,
        })
        const results = await Promise.all([1, 2, 3].map(() => check(context('turnstile'))))
        return [new Set(results.map(({ turnstileToken }) => turnstileToken)).size, most]
      })
      assert.deepEqual([results, most], [3, 1])
    })

    for (const name of ['hcaptcha', 'recaptcha', 'turnstile', 'friendly', 'fingerprint']) {
      test(`${name}: an abort before, while it loads and while it runs rejects with the reason, and the next run passes`, async () => {
        reply = () => {}
        const outcomes = await world.run(async (name) => {
          const outcomes = []
          const reasonOf = (promise) => promise.catch((reason) => reason)
          const check = make(name)
          outcomes.push(await reasonOf(check(context(name, AbortSignal.abort('before')))))
          const title = name === 'friendly' ? 'friendlyCaptcha' : name
          const loading = new AbortController()
          setTimeout(() => loading.abort('loading'), 100)
          const never = checks[title]({ url: `${own}/never.js`, siteKey: 'key', action: 'login' })
          outcomes.push(await reasonOf(never({ signal: loading.signal })))
          globalThis.approovSim = { outcome: 'never' }
          const running = new AbortController()
          setTimeout(() => running.abort('running'), 300)
          outcomes.push(await reasonOf(check(context(name, running.signal))))
          globalThis.approovSim = undefined
          outcomes.push(await codeOf(check(context(name))))
          return [...outcomes, document.body.children.length]
        }, name)
        assert.deepEqual(outcomes, ['before', 'loading', 'running', 'passed', 0])
      })
    }

    test('firstOf falls back, but not after a cancelled check nor an abort', async () => {
      const outcomes = await world.run(async () => {
        const calls = []
        const failing = (code) => async () => {
          calls.push(code)
          throw Object.assign(new Error(code), { code })
        }
        const passing = async () => {
          calls.push('pass')
          return { hcaptchaToken: 'x' }
        }
        const run = async (check, context) => {
          const outcome = await check(context).then(Object.keys, (error) => error.code ?? error)
          return [outcome, calls.splice(0)]
        }
        const controller = new AbortController()
        const aborting = async () => {
          controller.abort('why')
          throw controller.signal.reason
        }
        return [
          await run(checks.firstOf(failing('check-blocked'), passing), context('hcaptcha')),
          await run(checks.firstOf(failing('check-cancelled'), passing), context('hcaptcha')),
          await run(checks.firstOf(failing('check-blocked'), failing('check-timeout')), context('hcaptcha')),
          await run(checks.firstOf(aborting, passing), context('hcaptcha', controller.signal)),
        ]
      })
      assert.deepEqual(outcomes, [
        [['hcaptchaToken'], ['check-blocked', 'pass']],
        ['check-cancelled', ['check-cancelled']],
        ['check-timeout', ['check-blocked', 'check-timeout']],
        ['why', []],
      ])
    })

    test('unusable arguments are named, at once or when the check runs', async () => {
      const messages = await world.run(async () => {
        const messageOf = async (work) => {
          try {
            await work()
          } catch (error) {
            return `${error.code}: ${error.message}`
          }
        }
        return [
          await messageOf(() => checks.recaptcha(/** @type {any} */ ({}))),
          await messageOf(() => checks.hcaptcha({ timeout: -1 })),
          await messageOf(() => checks.firstOf(.../** @type {any} */ ([]))),
          await messageOf(() => checks.hcaptcha()(/** @type {any} */ ({}))),
          await messageOf(() => make('hcaptcha')(context('altcha'))),
          await messageOf(async () => {
            const { hcaptchaSiteKey } = keysOf('hcaptcha')
            await make('hcaptcha')(context('hcaptcha'))
            await checks.hcaptcha({ siteKey: hcaptchaSiteKey, container: '#nowhere' })(context('hcaptcha'))
          }),
        ]
      })
      for (const message of messages) assert.match(message, /^invalid-argument: /)
      assert.match(messages[0], /"action"/)
      assert.match(messages[1], /"timeout"/)
      assert.match(messages[3], /"siteKey"/)
      assert.match(messages[5], /"container"/)
    })

    test('a widget goes where it is wanted, and a visible hCaptcha waits for the click', async () => {
      const outcome = await world.run(async () => {
        const place = document.body.appendChild(document.createElement('section'))
        await make('hcaptcha')(context('hcaptcha'))
        const { hcaptchaSiteKey: siteKey } = keysOf('hcaptcha')
        const run = checks.hcaptcha({ siteKey, size: 'normal', container: () => place })(context('hcaptcha'))
        while (!place.querySelector('button')) await new Promise((resolve) => setTimeout(resolve))
        place.querySelector('button').click()
        const { hcaptchaToken } = await run
        return [/^sim-pass/.test(hcaptchaToken.response), Boolean(hcaptchaToken.key), place.children.length]
      })
      assert.deepEqual(outcome, [true, true, 0])
    })

    test('where there is no page: check-unsupported', async () => {
      const code = await world.run(async () => {
        const source = `
          import { hcaptcha } from ${JSON.stringify(new URL('/package/checks.js', location.href).href)}
          hcaptcha({ siteKey: 'x' })({}).catch((error) => postMessage(error.name + ' ' + error.code))`
        const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), {
          type: 'module',
        })
        return new Promise((resolve) => (worker.onmessage = ({ data }) => resolve(data)))
      })
      assert.equal(code, 'ApproovCheckError check-unsupported')
    })

    for (const page of ['trusted', 'nonce']) {
      test(`a page whose policy wants ${page === 'nonce' ? 'a nonce' : 'trusted types'}`, async () => {
        await world.freshPage(`/${page}.html`)
        await world.webdriver.wait(async () => (await world.webdriver.getTitle()) !== 'running', HANG)
        assert.equal(await world.webdriver.getTitle(), 'passed')
      })
    }
  })
}
