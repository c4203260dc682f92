// `approov-web-sdk/checks`: the loaders and runners of the check services, with the simulated scripts in their places.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, before, beforeEach, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG, until } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

/** Each check: the keys of the session, the simulator's script, options, and which option of `fetchToken` takes its result. */
const CHECKS = {
  hcaptcha: {
    keys: 'hcaptcha',
    path: 'hcaptcha/1/api.js?render=explicit&recaptchacompat=off',
    result: 'hcaptchaToken',
  },
  recaptcha: {
    keys: 'recaptcha',
    path: 'recaptcha/api.js?render=explicit',
    result: 'recaptchaToken',
    options: { action: 'login' },
  },
  recaptchaEnterprise: {
    keys: 'recaptchaEnterprise',
    path: 'recaptcha/enterprise.js?render=explicit',
    result: 'recaptchaToken',
    options: { action: 'login' },
  },
  turnstile: {
    keys: 'turnstile',
    path: 'turnstile/v0/api.js?render=explicit',
    result: 'turnstileToken',
    options: { action: 'login' },
  },
  friendlyCaptcha: { keys: 'friendly', path: 'friendly/site.js', result: 'friendlyCaptchaResponse' },
  fingerprint: {
    keys: 'fingerprint',
    path: 'fingerprint/v4/dev-fingerprint-public-api-key',
    result: 'fingerprintIDResult',
  },
}
const SCRIPTED = Object.keys(CHECKS).filter((name) => name !== 'fingerprint')
const WIDGETS = ['hcaptcha', 'turnstile', 'friendlyCaptcha']

/** Way and path of a script: `/once/N/PATH` fails the first time, `/held/N/PATH` waits until it is released, `/never/…` for ever. */
const PATTERN = /^\/(once|held|never|count)\/(\d+)\/(.*)$/

/** A server that stands between the page and the simulators. */
async function startScripts(simulators) {
  const requests = []
  const failed = new Set()
  const held = []
  let isHolding = true
  const server = createServer((request, response) => {
    const [, way, number, path] = PATTERN.exec(request.url) ?? []
    requests.push(request.url)
    const headers = { 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'no-store' }
    const pass = () => response.writeHead(302, { ...headers, Location: `${simulators}/${path}` }).end()
    if (way === 'once' && !failed.has(number)) {
      failed.add(number)
      response.writeHead(503, headers).end()
    } else if (way === 'held' && isHolding) held.push(pass)
    else if (way !== 'never') pass()
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
  })
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  let number = 0
  return {
    /** A script's URL, another one each time. */
    url: (way, path) => `http://127.0.0.1:${port}/${way}/${(number += 1)}/${path}`,
    timesAsked: (url) => requests.filter((request) => url.endsWith(request)).length,
    hold: () => (isHolding = true),
    release: () => {
      isHolding = false
      for (const pass of held.splice(0)) pass()
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve(undefined))
        server.closeAllConnections()
      }),
  }
}

/** A page under a policy: its own script makes the check, and shows what comes of it. */
const policyPage = (policy, work) => `<!doctype html>
  <meta http-equiv="Content-Security-Policy" content="${policy}">
  <title>policy</title>
  <link rel="icon" href="data:,">
  <body><output></output>
  <script type="module" nonce="a-nonce">
    import { hcaptcha } from '/package/checks.js'
    const { url, key, nonce } = Object.fromEntries(new URLSearchParams(location.search))
    const check = hcaptcha({ url, siteKey: key, ...(nonce && { nonce }) })
    const context = { signal: new AbortController().signal, reason: 'start', keys: {} }
    ${work}
    const outcome = await check(context).then((result) => Object.keys(result).join(), (error) => error.code ?? String(error))
    document.querySelector('output').value = outcome
  </script>`

for (const engine of chosenEngines()) {
  describe(`check-loaders in ${ENGINES[engine].title}`, () => {
    let world, scripts
    before(async () => {
      const nonceOnly = "script-src 'self' 'nonce-a-nonce'"
      const types = "require-trusted-types-for 'script'; trusted-types approov-checks"
      world = await startWorld(engine, {
        routes: {
          '/nonce': () => policyPage(nonceOnly, ''),
          '/types': () => policyPage(`${nonceOnly}; ${types}`, ''),
          '/no-policy': () => policyPage(`${nonceOnly}; require-trusted-types-for 'script'; trusted-types other`, ''),
        },
      })
      scripts = await startScripts(world.settings.simulators)
    })
    after(async () => {
      await scripts?.stop()
      await world?.stop()
    })

    /** What the functions below need to know of a check, with another address of its script if there is one. */
    const about = (name, url) => {
      const { keys, path, result, options } = CHECKS[name]
      const { settings } = world
      return {
        name,
        keys: settings.keys[keys],
        url: url ?? `${settings.simulators}/${path}`,
        result,
        options,
        settings,
      }
    }
    const run = (work, ...args) => world.run(work, ...args)

    /** A new page with the functions that tests use. */
    beforeEach(async () => {
      await world.freshPage()
      await run(async () => {
        const checks = await import('/package/checks.js')
        const { ApproovCheckError } = await import('/package/index.js')
        Object.assign(globalThis, {
          checks,
          make: ({ name, url, options }, more = {}) => checks[name]({ url, ...options, ...more }),
          /** A context, and what aborts it. */
          context: ({ keys }) => {
            const controller = new AbortController()
            return { signal: controller.signal, reason: 'start', keys, abort: (reason) => controller.abort(reason) }
          },
          /** What a check comes to, as data. */
          comesTo: (promise) =>
            promise.then(
              (value) => ({ names: Object.keys(value), value }),
              (error) => ({
                isCheckError: error instanceof ApproovCheckError,
                code: error?.code,
                check: error?.check,
                retryable: error?.retryable,
                message: String(error?.message ?? error),
                cause: error?.cause?.code ?? error?.cause?.message ?? error?.cause,
              }),
            ),
          until: async (holds) => {
            while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
          },
          /** What a run may leave: an element in the body is a client of reCAPTCHA. */
          left: () => [...document.body.querySelectorAll('div, button, textarea')].length,
          /** Holds the timers with this delay, which no other has: none runs but by `fire`. */
          hold: (delay) => {
            const { setTimeout, clearTimeout } = globalThis
            const held = new Map()
            let armed = 0
            Object.assign(globalThis, {
              setTimeout: (work, milliseconds, ...rest) => {
                if (milliseconds !== delay) return setTimeout(work, milliseconds, ...rest)
                armed += 1
                held.set(-armed, work)
                return -armed
              },
              clearTimeout: (id) => held.delete(id) || clearTimeout(id),
            })
            return {
              armed: () => armed,
              pending: () => held.size,
              fire: () => {
                for (const [id, work] of held) {
                  held.delete(id)
                  work()
                }
              },
            }
          },
        })
      })
    })

    for (const name of Object.keys(CHECKS)) {
      test(`${name} passes, and its result opens the API`, async () => {
        const outcome = await run(async (about) => {
          const { Approov } = await import('/package/index.js')
          const { callApi, PATIENCE } = await import('/flow.js')
          const { settings, keys } = about
          const { approovHost, approovSiteKey, api } = settings
          await Approov.initializeSession({ approovHost, approovSiteKey, ...keys })
          const result = await globalThis.make(about)(globalThis.context(about))
          const token = await Approov.fetchToken(api, { ...result, timeout: PATIENCE })
          const proof = await Approov.getDPoPToken('GET', settings.apiUrl, crypto.randomUUID(), token)
          const { status } = await callApi(settings, { token, proof })
          return { names: Object.keys(result), status }
        }, about(name))
        assert.deepEqual(outcome, { names: [CHECKS[name].result], status: 200 })
      })

      test(`${name}: a second run has a result of its own, the script is loaded once, and nothing is left`, async () => {
        const url = scripts.url('count', CHECKS[name].path)
        const outcome = await run(
          async (about) => {
            const check = globalThis.make(about)
            const first = await check(globalThis.context(about))
            const left = globalThis.left()
            const second = await check(globalThis.context(about))
            // Another check function of the same service, too.
            const third = await globalThis.make(about)(globalThis.context(about))
            const results = [first, second, third].map((result) => JSON.stringify(result))
            return { different: new Set(results).size, left, leftThen: globalThis.left() }
          },
          about(name, url),
        )
        assert.equal(outcome.different, 3)
        // reCAPTCHA has no way to remove a client: one stays, with its form field.
        assert.deepEqual([outcome.left, outcome.leftThen], /^recaptcha/.test(name) ? [2, 2] : [0, 0])
        assert.equal(scripts.timesAsked(url), 1)
      })

      test(`${name}: concurrent runs take turns`, async () => {
        const outcome = await run(async (about) => {
          const check = globalThis.make(about)
          const begun = []
          const runs = [0, 1, 2].map(async (number) => {
            const result = await check(globalThis.context(about))
            begun.push(number)
            return JSON.stringify(result)
          })
          let most = 0
          const count = setInterval(() => (most = Math.max(most, document.querySelectorAll('body > div').length)))
          const results = await Promise.all(runs)
          clearInterval(count)
          return { different: new Set(results).size, begun, most }
        }, about(name))
        assert.deepEqual([outcome.different, outcome.begun], [3, [0, 1, 2]])
        assert.ok(outcome.most <= 1, `${outcome.most} widgets at once`)
      })

      test(`${name}: a script that is blocked is check-blocked`, async () => {
        const { path } = CHECKS[name]
        const blocked = `${world.settings.simulators}/${path}${path.includes('?') ? '&' : '?'}approov-sim=script-blocked`
        const outcome = await run(
          async (about) => ({
            ...(await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))),
            elements: document.querySelectorAll('script[src]').length,
          }),
          about(name, blocked),
        )
        const { code, check, retryable, isCheckError, elements } = outcome
        assert.deepEqual(
          { code, check, retryable, isCheckError, elements },
          { code: 'check-blocked', check: name, retryable: true, isCheckError: true, elements: 0 },
        )
      })

      test(`${name}: a load that failed once is forgotten`, async () => {
        const url = scripts.url('once', CHECKS[name].path)
        const [first, second] = await run(
          async (about) => {
            const check = globalThis.make(about)
            const first = await globalThis.comesTo(check(globalThis.context(about)))
            return [first, await globalThis.comesTo(check(globalThis.context(about)))]
          },
          about(name, url),
        )
        assert.equal(first.code, 'check-blocked')
        assert.deepEqual(second.names, [CHECKS[name].result])
        assert.equal(scripts.timesAsked(url), 2)
      })

      test(`${name}: a script that never responds is check-timeout, and is loaded anew`, async () => {
        scripts.hold()
        const url = scripts.url('held', CHECKS[name].path)
        await run(
          (about) => {
            globalThis.limits = globalThis.hold(12_345)
            const check = globalThis.make(about, { timeout: 12_345 })
            globalThis.outcome = globalThis.comesTo(check(globalThis.context(about)))
          },
          about(name, url),
        )
        await until('the script is asked for', () => scripts.timesAsked(url) === 1)
        const first = await run(async () => {
          globalThis.limits.fire()
          return { ...(await globalThis.outcome), elements: document.querySelectorAll('script[src]').length }
        })
        assert.deepEqual([first.code, first.retryable, first.elements], ['check-timeout', true, 0])
        scripts.release()
        const second = await run(
          (about) => globalThis.comesTo(globalThis.make(about)(globalThis.context(about))),
          about(name, url),
        )
        assert.deepEqual(second.names, [CHECKS[name].result])
      })

      test(`${name}: no answer is check-timeout, and the next run passes`, async () => {
        const [first, second] = await run(async (about) => {
          globalThis.approovSim = { outcome: 'never' }
          const limits = globalThis.hold(12_345)
          const check = globalThis.make(about, { timeout: 12_345 })
          const run = globalThis.comesTo(check(globalThis.context(about)))
          // One limit for the script, another for the answer.
          await globalThis.until(() => limits.armed() > 1)
          limits.fire()
          const first = await run
          globalThis.approovSim = undefined
          return [first, await globalThis.comesTo(check(globalThis.context(about)))]
        }, about(name))
        assert.deepEqual([first.code, first.retryable, first.check], ['check-timeout', true, name])
        assert.deepEqual(second.names, [CHECKS[name].result])
      })

      test(`${name}: what the vendor rejects with is the cause`, async () => {
        const outcome = await run(async (about) => {
          globalThis.approovSim = { outcome: 'reject' }
          const outcome = await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
          return { ...outcome, left: globalThis.left() }
        }, about(name))
        const causes = {
          hcaptcha: 'challenge-error',
          turnstile: '300030',
          fingerprint: 'network_connection',
          friendlyCaptcha: 'network_error',
        }
        const code = name === 'friendlyCaptcha' ? 'check-blocked' : 'check-failed'
        // reCAPTCHA rejects with null.
        assert.deepEqual([outcome.code, outcome.cause ?? null], [code, causes[name] ?? null])
        assert.equal(outcome.retryable, true)
      })

      test(`${name}: an abort ends every phase with its reason, and the next run passes`, async () => {
        scripts.hold()
        const url = scripts.url('held', CHECKS[name].path)
        const outcomes = await run(
          async (about) => {
            const limits = globalThis.hold(12_345)
            const check = globalThis.make(about, { timeout: 12_345 })
            const reasons = []
            const aborted = async (context, promise) => {
              context.abort(`reason ${reasons.length}`)
              reasons.push(await promise.catch((reason) => reason))
            }
            const before = globalThis.context(about)
            before.abort('reason 0')
            reasons.push(await check(before).catch((reason) => reason))
            // While the script is on its way, and while another run is.
            const loading = globalThis.context(about)
            const waiting = globalThis.context(about)
            const runs = [check(loading), check(waiting)]
            await globalThis.until(() => limits.pending() === 1)
            await aborted(waiting, runs[1])
            await aborted(loading, runs[0])
            return { reasons, left: globalThis.left(), pending: limits.pending() }
          },
          about(name, url),
        )
        scripts.release()
        assert.deepEqual(outcomes, { reasons: ['reason 0', 'reason 1', 'reason 2'], left: 0, pending: 0 })
        const answering = await run(
          async (about) => {
            const limits = globalThis.hold(23_456)
            const check = globalThis.make(about, { timeout: 23_456 })
            globalThis.approovSim = { outcome: 'never' }
            const context = globalThis.context(about)
            const { addEventListener, removeEventListener } = context.signal
            let listeners = 0
            Object.assign(context.signal, {
              addEventListener(...args) {
                listeners += 1
                return addEventListener.apply(this, args)
              },
              removeEventListener(...args) {
                listeners -= 1
                return removeEventListener.apply(this, args)
              },
            })
            const promise = check(context)
            await globalThis.until(() => limits.armed() > 1)
            context.abort('late')
            const reason = await promise.catch((reason) => reason)
            globalThis.approovSim = undefined
            const left = globalThis.left()
            const { names } = await globalThis.comesTo(check(globalThis.context(about)))
            return { reason, listeners, left, names, pending: limits.pending() }
          },
          about(name, url),
        )
        const left = /^recaptcha/.test(name) ? 2 : 0
        assert.deepEqual(answering, { reason: 'late', listeners: 0, left, names: [CHECKS[name].result], pending: 0 })
        // The script that was on its way when the first run was given up is the one that is used.
        assert.equal(scripts.timesAsked(url), 1)
      })

      test(`${name}: without a site key it is invalid-argument`, async () => {
        const outcome = await run(
          async (about) => globalThis.comesTo(globalThis.make(about)(globalThis.context({ keys: {} }))),
          about(name),
        )
        assert.equal(outcome.code, 'invalid-argument')
        assert.match(outcome.message, /"siteKey"/)
      })
    }

    for (const name of SCRIPTED) {
      test(`${name}: a script of the page is used, loaded or still loading, whatever its parameters`, async () => {
        scripts.hold()
        const [path] = CHECKS[name].path.split('?')
        const url = scripts.url('held', path)
        const start = (about) => {
          const load = (src) => {
            globalThis.loaded = new Promise((resolve) => {
              document.head.append(Object.assign(document.createElement('script'), { src, onload: resolve }))
            })
          }
          load(about.url)
          globalThis.outcome = globalThis.comesTo(
            globalThis.make({ ...about, url: `${about.url}?render=explicit` })(globalThis.context(about)),
          )
        }
        await run(start, about(name, url))
        await until('the script is asked for', () => scripts.timesAsked(url) === 1)
        scripts.release()
        const outcomes = await run(
          async (about) => {
            const loading = await globalThis.outcome
            const loaded = await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
            return [loading.names, loaded.names, document.querySelectorAll('script[src]').length]
          },
          about(name, url),
        )
        const names = [CHECKS[name].result]
        assert.deepEqual(outcomes, [names, names, 1])
        assert.equal(scripts.timesAsked(url), 1)
      })

      test(`${name}: a script that loads and does nothing is check-blocked`, async () => {
        const outcome = await run(async (about) => {
          globalThis.approovSim = { outcome: 'script-blocked' }
          return globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
        }, about(name))
        assert.equal(outcome.code, 'check-blocked')
      })
    }

    for (const name of WIDGETS) {
      test(`${name}: a person who is asked has as long as it takes, and until the signal`, async () => {
        const [limited, first, second] = await run(async (about) => {
          globalThis.approovSim = { interactive: true }
          const limits = globalThis.hold(12_345)
          const check = globalThis.make(about, { timeout: 12_345 })
          const button = () => document.querySelector('button')
          // While a person is asked, nothing is limited.
          const isAsked = () => button() && limits.armed() && !limits.pending()
          const run = globalThis.comesTo(check(globalThis.context(about)))
          await globalThis.until(isAsked)
          const limited = limits.armed()
          button().click()
          const first = await run
          const context = globalThis.context(about)
          const next = check(context)
          await globalThis.until(isAsked)
          context.abort('enough')
          return [limited, first, await next.catch((reason) => reason)]
        }, about(name))
        // The script and the widget had a limit.
        assert.ok(limited >= 2, `${limited}`)
        assert.deepEqual(first.names, [CHECKS[name].result])
        assert.equal(second, 'enough')
      })

      test(`${name}: its container is where the page wants it`, async () => {
        const found = await run(async (about) => {
          globalThis.approovSim = { interactive: true }
          const limits = globalThis.hold(12_345)
          const place = Object.assign(document.createElement('main'), { id: 'place' })
          document.body.append(place)
          const found = []
          for (const container of ['#place', place, () => place]) {
            const run = globalThis.make(about, { container, timeout: 12_345 })(globalThis.context(about))
            await globalThis.until(() => document.querySelector('button') && !limits.pending())
            found.push(place.contains(document.querySelector('button')))
            document.querySelector('button').click()
            await run
            found.push(place.isConnected && place.children.length)
          }
          const missing = globalThis.make(about, { container: '#nowhere' })(globalThis.context(about))
          return [...found, (await globalThis.comesTo(missing)).message]
        }, about(name))
        const message = found.pop()
        assert.deepEqual(found, [true, 0, true, 0, true, 0])
        assert.match(message, /"container"/)
      })
    }

    test('hcaptcha: a challenge that is closed is check-cancelled, one that expires check-timeout', async () => {
      const [closed, expired, visible] = await run(async (about) => {
        globalThis.approovSim = { interactive: true }
        const check = globalThis.make(about)
        const challenge = () => /challenge/.test(document.body.textContent)
        const cancel = async (check) => {
          const run = globalThis.comesTo(check(globalThis.context(about)))
          await globalThis.until(() => document.querySelector('button'))
          // The visible widget has a box to click first.
          if (!challenge()) document.querySelector('button').click()
          await globalThis.until(challenge)
          globalThis.hcaptcha.close()
          return run
        }
        const closed = await cancel(check)
        const visible = await cancel(globalThis.make(about, { size: 'normal', theme: 'auto' }))
        globalThis.approovSim = { outcome: 'timeout' }
        return [closed, await globalThis.comesTo(check(globalThis.context(about))), visible]
      }, about('hcaptcha'))
      assert.deepEqual([closed.code, closed.cause, closed.retryable], ['check-cancelled', 'challenge-closed', false])
      assert.deepEqual([visible.code, visible.cause], ['check-cancelled', 'challenge-closed'])
      assert.deepEqual([expired.code, expired.cause, expired.retryable], ['check-timeout', 'challenge-expired', true])
    })

    test('turnstile: a browser that it does not support is check-unsupported, an own time-out check-timeout', async () => {
      const outcomes = await run(async (about) => {
        const outcomes = []
        for (const outcome of ['reject:unsupported', 'reject:110510', 'timeout', 'bot', 'reject:200500']) {
          globalThis.approovSim = { outcome }
          const { code, retryable } = await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
          outcomes.push([code, retryable])
        }
        return outcomes
      }, about('turnstile'))
      assert.deepEqual(outcomes, [
        ['check-unsupported', false],
        ['check-unsupported', false],
        ['check-timeout', true],
        ['check-failed', true],
        ['check-blocked', true],
      ])
    })

    test('fingerprint: codes of the agent say whether it was blocked or late', async () => {
      const outcomes = await run(async (about) => {
        const outcomes = []
        for (const outcome of ['timeout', 'reject:csp_block', 'reject:too_many_requests']) {
          globalThis.approovSim = { outcome }
          const { code, cause } = await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
          outcomes.push([code, cause])
        }
        return outcomes
      }, about('fingerprint'))
      assert.deepEqual(outcomes, [
        ['check-timeout', 'client_timeout'],
        ['check-blocked', 'csp_block'],
        ['check-failed', 'too_many_requests'],
      ])
    })

    test('options reach the interfaces of the vendors', async () => {
      const seen = await run(async () => {
        const { checks, context } = /** @type {any} */ (globalThis)
        const seen = []
        const render = (element, { sitekey, callback, ...options }) => {
          seen.push(options)
          setTimeout(() => callback('token'))
        }
        const nothing = () => {}
        const hcaptcha = { render, execute: nothing, remove: nothing, getRespKey: () => 'key' }
        const createWidget = ({ element, ...options }) => {
          seen.push(options)
          const detail = { response: 'response' }
          setTimeout(() => element.dispatchEvent(new CustomEvent('frc:widget.complete', { detail })))
          return { destroy: nothing }
        }
        Object.assign(globalThis, { hcaptcha, turnstile: { render, remove: nothing }, frcaptcha: { createWidget } })
        const agent = 'export const start = (options) => ({ get: async (more) => ({ ...options, ...more }) })'
        const given = context({ keys: {} })
        const siteKey = 'key'
        await checks.hcaptcha({ siteKey, size: 'compact', theme: 'dark' })(given)
        await checks.turnstile({ siteKey, action: 'login', appearance: 'always', theme: 'dark' })(given)
        await checks.friendlyCaptcha({ siteKey, endpoint: 'eu', theme: 'auto', timeout: Infinity })(given)
        const url = `data:text/javascript,${encodeURIComponent(agent)}`
        const options = { siteKey, url, region: 'eu', endpoints: ['https://a.example'], timeout: 7000 }
        seen.push((await checks.fingerprint(options)(given)).fingerprintIDResult)
        seen.push((await checks.fingerprint({ siteKey, url, endpoints: null })(given)).fingerprintIDResult)
        return seen
      })
      const [hcaptcha, turnstile, friendly, ...fingerprint] = seen
      assert.deepEqual([hcaptcha.size, hcaptcha.theme], ['compact', 'dark'])
      const { action, appearance, theme, retry } = turnstile
      assert.deepEqual(
        { action, appearance, theme, retry },
        { action: 'login', appearance: 'always', theme: 'dark', retry: 'never' },
      )
      assert.deepEqual(friendly, {
        sitekey: 'key',
        apiEndpoint: 'eu',
        theme: 'auto',
        startMode: 'auto',
        formFieldName: null,
      })
      assert.deepEqual(fingerprint, [
        { region: 'eu', endpoints: ['https://a.example'], timeout: 7000 },
        { region: 'us', timeout: 10_000 },
      ])
    })

    test('a script of the page that has failed before is loaded anew after one time-out', async () => {
      const url = scripts.url('once', CHECKS.hcaptcha.path)
      const [first, second] = await run(
        async (about) => {
          await new Promise((resolve) => {
            document.head.append(Object.assign(document.createElement('script'), { src: about.url, onerror: resolve }))
          })
          const limits = globalThis.hold(12_345)
          const check = globalThis.make(about, { timeout: 12_345 })
          const run = globalThis.comesTo(check(globalThis.context(about)))
          await globalThis.until(() => limits.pending())
          limits.fire()
          return [await run, await globalThis.comesTo(check(globalThis.context(about)))]
        },
        about('hcaptcha', url),
      )
      assert.deepEqual([first.code, second.names], ['check-timeout', ['hcaptchaToken']])
    })

    test('reCAPTCHA v3, Enterprise and hCaptcha stand side by side', async () => {
      const names = await run(
        async (all) => {
          const names = []
          for (const about of [...all, ...all]) {
            names.push(...Object.keys(await globalThis.make(about)(globalThis.context(about))))
          }
          return names
        },
        ['hcaptcha', 'recaptchaEnterprise', 'recaptcha'].map((name) => about(name)),
      )
      const once = ['hcaptchaToken', 'recaptchaToken', 'recaptchaToken']
      assert.deepEqual(names, [...once, ...once])
    })

    test('recaptcha: a client whose element the page has removed is made anew', async () => {
      const tokens = await run(async (about) => {
        const check = globalThis.make(about)
        const first = await check(globalThis.context(about))
        document.body.replaceChildren()
        return [first, await check(globalThis.context(about))].map(({ recaptchaToken }) => recaptchaToken)
      }, about('recaptcha'))
      assert.equal(new Set(tokens).size, 2)
    })

    test('recaptcha: what the script defines first is not taken for the whole', async () => {
      const outcome = await run(async (about) => {
        // As Google's script does, which loads the rest by itself.
        const stub = 'globalThis.grecaptcha = { ready() {} }'
        const { setTimeout } = globalThis
        let looks = 0
        Object.assign(globalThis, {
          setTimeout: (...args) => {
            if (globalThis.grecaptcha && args[1] === 50) looks += 1
            return setTimeout(.../** @type {[any, number]} */ (args))
          },
        })
        const check = globalThis.make(about, { url: `data:text/javascript,${encodeURIComponent(stub)}` })
        const run = globalThis.comesTo(check(globalThis.context(about)))
        await globalThis.until(() => looks > 2)
        Object.assign(globalThis.grecaptcha, { render: () => 0, execute: async () => 'late', reset() {} })
        return run
      }, about('recaptcha'))
      assert.deepEqual(outcome.value, { recaptchaToken: 'late' })
    })

    test('a policy with a nonce lets the script through, Trusted Types too, and none that lacks it', async () => {
      const { url, keys } = about('hcaptcha')
      const visit = async (path, more = {}) => {
        const query = new URLSearchParams({ url, key: keys.hcaptchaSiteKey, ...more })
        await world.webdriver.get(`${world.site.url}${path}?${query}`)
        const value = () => world.webdriver.executeScript('return document.querySelector("output").value')
        await world.webdriver.wait(async () => Boolean(await value()), HANG)
        return value()
      }
      assert.equal(await visit('/nonce'), 'hcaptchaToken')
      assert.equal(await visit('/nonce', { nonce: 'a-nonce' }), 'hcaptchaToken')
      assert.equal(await visit('/nonce', { nonce: 'another' }), 'check-blocked')
      assert.equal(await visit('/types'), 'hcaptchaToken')
      const isEnforced = await world.webdriver.executeScript('return "trustedTypes" in globalThis')
      assert.equal(await visit('/no-policy'), isEnforced ? 'check-blocked' : 'hcaptchaToken')
    })

    test('where there is no document, a check is check-unsupported, and making one is not', async () => {
      const outcomes = await run(async (names) => {
        const code = `
          import * as checks from '${location.origin}/package/checks.js'
          const context = { signal: new AbortController().signal, reason: 'start', keys: {} }
          const outcomes = []
          for (const name of ${JSON.stringify(names)}) {
            const check = checks[name]({ siteKey: 'key', action: 'login' })
            await check(context).catch(({ code, check, retryable }) => outcomes.push([code, check, retryable]))
          }
          postMessage([...outcomes, await checks.altcha()(context)])`
        const worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })), {
          type: 'module',
        })
        return new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data)
          worker.onerror = reject
        })
      }, Object.keys(CHECKS))
      const altcha = outcomes.pop()
      assert.deepEqual(
        outcomes,
        Object.keys(CHECKS).map((name) => ['check-unsupported', name, false]),
      )
      assert.deepEqual(altcha, { altchaPayload: true })
    })

    test('unusable options are invalid-argument when the check is made', async () => {
      const messages = await run(async () => {
        const { checks } = /** @type {any} */ (globalThis)
        const thrown = (work) => {
          try {
            return work() && 'nothing was thrown'
          } catch (error) {
            return `${error.code}: ${error.message}`
          }
        }
        return [
          thrown(() => checks.recaptcha({})),
          thrown(() => checks.recaptchaEnterprise()),
          thrown(() => checks.hcaptcha({ timeout: 'soon' })),
          thrown(() => checks.hcaptcha({ timeout: 0 })),
          thrown(() => checks.firstOf()),
          thrown(() => checks.firstOf(checks.altcha)) ?? '',
          thrown(() => checks.firstOf(Promise.resolve())),
          thrown(() => checks.hcaptcha(null)),
          thrown(() => checks.hcaptcha({ timeout: null, siteKey: null, container: null })),
        ]
      })
      const nothing = 'nothing was thrown'
      for (const [index, part] of ['"action"', '"action"', '"timeout"', '"timeout"', 'firstOf'].entries()) {
        assert.ok(messages[index].startsWith('invalid-argument: ') && messages[index].includes(part), messages[index])
      }
      assert.deepEqual([messages[5], messages[7], messages[8]], [nothing, nothing, nothing])
      assert.match(messages[6], /^invalid-argument: firstOf/)
    })

    test('what is on Object.prototype is no option', async () => {
      const outcome = await run(async (about) => {
        Object.assign(Object.prototype, { siteKey: 'polluted', timeout: 1, container: '#nowhere', url: 'about:blank' })
        try {
          return await globalThis.comesTo(globalThis.make(about)(globalThis.context(about)))
        } finally {
          for (const name of ['siteKey', 'timeout', 'container', 'url']) delete Object.prototype[name]
        }
      }, about('hcaptcha'))
      assert.deepEqual(outcome.names, ['hcaptchaToken'])
    })

    test('firstOf falls back, but not after a cancelled check, nor after an abort', async () => {
      const outcome = await run(
        async (blocked, hcaptcha) => {
          const { checks, make, context, comesTo, until } = /** @type {any} */ (globalThis)
          const fallsBack = await comesTo(checks.firstOf(make(blocked), make(hcaptcha))(context(hcaptcha)))
          const { value } = await comesTo(checks.firstOf(make(blocked), checks.altcha())(context(blocked)))
          const allFail = await comesTo(
            checks.firstOf(make(hcaptcha, { siteKey: '' }), make(blocked))(context(blocked)),
          )
          let others = 0
          const other = () => ({ altchaPayload: String((others += 1)) })
          globalThis.approovSim = { interactive: true }
          const cancelled = comesTo(checks.firstOf(make(hcaptcha), other)(context(hcaptcha)))
          await until(() => document.querySelector('button'))
          globalThis.hcaptcha.close()
          const cancelledCode = (await cancelled).code
          const given = context(hcaptcha)
          const aborted = checks.firstOf(make(hcaptcha), other)(given)
          await until(() => document.querySelector('button'))
          given.abort('enough')
          return {
            fallsBack: fallsBack.names,
            value,
            allFail: allFail.code,
            cancelledCode,
            aborted: await aborted.catch((reason) => reason),
            others,
          }
        },
        about('turnstile', `${world.settings.simulators}/turnstile/v0/api.js?approov-sim=script-blocked`),
        about('hcaptcha'),
      )
      assert.deepEqual(outcome, {
        fallsBack: ['hcaptchaToken'],
        value: { altchaPayload: true },
        allFail: 'check-blocked',
        cancelledCode: 'check-cancelled',
        aborted: 'enough',
        others: 0,
      })
    })

    test('a check is what createFetch calls to renew', async () => {
      const outcome = await run(
        async (blocked, hcaptcha) => {
          const { Approov } = await import('/package/index.js')
          const { checks, make } = /** @type {any} */ (globalThis)
          const { approovHost, approovSiteKey, api, apiUrl } = hcaptcha.settings
          const apiFetch = /** @type {any} */ (Approov).createFetch({
            origins: [new URL(apiUrl).origin],
            api,
            session: { approovHost, approovSiteKey, ...hcaptcha.keys },
            renew: checks.firstOf(make(blocked, { siteKey: 'key' }), make(hcaptcha)),
          })
          return (await apiFetch(apiUrl)).status
        },
        about('turnstile', `${world.settings.simulators}/turnstile/v0/api.js?approov-sim=script-blocked`),
        about('hcaptcha'),
      )
      assert.equal(outcome, 200)
    })

    test('approov.js has the checks, too, with its own classes of errors', async () => {
      const outcome = await run(async () => {
        const { checks, ApproovCheckError } = await import('/approov.js')
        const context = { signal: AbortSignal.timeout(1e6), reason: /** @type {const} */ ('start'), keys: {} }
        const url = `${location.origin}/not-there.js`
        const run = Promise.resolve(checks.hcaptcha({ siteKey: 'key', url })(context))
        const error = await run.catch((error) => error)
        return [Object.keys(checks).sort(), error instanceof ApproovCheckError, error.code]
      })
      assert.deepEqual(outcome, [
        [
          'altcha',
          'fingerprint',
          'firstOf',
          'friendlyCaptcha',
          'hcaptcha',
          'recaptcha',
          'recaptchaEnterprise',
          'turnstile',
        ],
        true,
        'check-blocked',
      ])
    })
  })
}
