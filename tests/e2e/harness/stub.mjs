// A stand-in for the web protection service that responds as a test says, well-formed or not, and the groups of tests against it, whose
// time passes only when they say so.
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { createServer } from 'node:http'
import { after, afterEach, before, beforeEach, describe } from 'node:test'

import { openBrowser, SCRIPT_TIMEOUT } from './browser.mjs'
import { chosenEngines, ENGINES } from './engines.mjs'
import { HANG } from './wait.mjs'
import { startSite } from './world.mjs'

export const HOUR = 3_600_000

const CORS = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Allow-Headers': 'dpop, content-type',
  'Access-Control-Allow-Methods': 'GET, POST',
  'Access-Control-Expose-Headers': 'DPoP-Nonce, Date, Retry-After',
  'Access-Control-Max-Age': '7200',
}

/**
 * Writes a response: a status with its phrase, an object as JSON or a text, further headers.
 *
 * @param {import('node:http').ServerResponse} response
 * @param {number} status
 * @param {unknown} body
 * @param {{phrase?: string, headers?: Record<string, string>}} [options]
 */
export function respond(response, status, body, options = {}) {
  /** @type {{phrase?: string, headers?: object}} */
  const { phrase, headers } = options
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const all = { 'Content-Type': 'application/json', 'DPoP-Nonce': `nonce-${Math.random()}`, ...CORS, ...headers }
  if (phrase) response.writeHead(status, phrase, all)
  else response.writeHead(status, all)
  response.end(text)
}

/**
 * A stand-in, which `start` lets listen.
 *
 * @param {() => number} now its clock, in milliseconds since the Unix epoch
 */
export function createStub(now = Date.now) {
  let handler
  let forms
  let requests
  let abandoned
  const events = new EventEmitter()
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    response.sendDate = false
    response.setHeader('Date', new Date(now()).toUTCString())
    if (request.method === 'OPTIONS') return response.writeHead(204, CORS).end()
    if (request.method === 'GET') return response.writeHead(204, { 'DPoP-Nonce': 'nonce-1', ...CORS }).end()
    let form = ''
    request.setEncoding('utf8').on('data', (chunk) => (form += chunk))
    response.on('close', () => {
      if (response.writableFinished) return
      abandoned += 1
      events.emit('change')
    })
    request.on('end', () => {
      const count = forms.push(form)
      events.emit('change')
      handler(response, form, count)
    })
  })
  const until = async (holds) => {
    const signal = AbortSignal.timeout(HANG)
    while (!holds()) await once(events, 'change', { signal })
  }

  const grantAll = (response, form) => respond(response, 200, stub.grant(form))

  const stub = {
    url: undefined,
    /** The body that grants everything an attest request asks for. */
    grant(form, { lifetime = 120, session = 2 * HOUR } = {}) {
      const apis = new URLSearchParams(form).getAll('api')
      return {
        tokens: Object.fromEntries(apis.map((api) => [api, `token.${Math.random().toString(36).slice(2)}.for-${api}`])),
        'token-lifetime': lifetime,
        'refresh-token': `refresh-${Math.random().toString(36).slice(2)}`,
        expiries: { session: now() + session, 'recap:re': now() + session },
        'server-time': now(),
      }
    },
    /**
     * What happens to attest requests from now on: `handler(response, form, count)`, where `count` starts at 1. Without a handler
     * everything is granted. What was counted so far is forgotten.
     */
    reply(next = grantAll) {
      handler = next
      forms = []
      requests = []
      abandoned = 0
    },
    /**
     * Lets attest requests from now on wait for `release`, which grants them and those that follow.
     *
     * @returns {() => void} `release`
     */
    hold() {
      const waiting = []
      stub.reply((response, form) => waiting.push(() => grantAll(response, form)))
      return () => {
        handler = grantAll
        for (const release of waiting.splice(0)) release()
      }
    },
    /** The bodies of the attest requests since `reply` or `hold`. */
    forms: () => forms,
    /** Method and URL of everything since then. */
    requests: () => requests,
    /** Waits until that many attest requests have come since then. */
    received: (count) => until(() => forms.length >= count),
    /** Waits until the browser has given up that many requests before their response was whole. */
    abandoned: (count) => until(() => abandoned >= count),
    /** What a page with the stand-in as its service gives to `initializeSession`. */
    options: () => ({ approovHost: stub.url, approovSiteKey: 'site', recaptchaSiteKey: 're' }),
    async start() {
      await new Promise((resolve, reject) => {
        server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
      })
      const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
      stub.url = `http://127.0.0.1:${port}`
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      }),
  }
  stub.reply()
  return stub
}

/** When every test begins, by the clocks of page and stand-in. */
const START = Date.UTC(2030, 0, 1)

/**
 * Describes a group of tests in each engine: one browser and one stand-in for all of them, and for each test a fresh page with a clock that
 * stands still (`pages/clock.js`), where these are global: what `approov.js` and `pages/flow.js` export, the `options` of
 * `initializeSession`, and `outcome(promise)`, the promise's value or the name and code of its error. At the end of a test nothing may be
 * uncaught in its page.
 *
 * @param {string} title
 * @param {(suite: any) => void} define declares the tests. It gets `stub`; `run(work, ...args)` in the page; `advance(ms)`, which
 *   moves the clocks of page and stand-in; `sleep(ms, { isTicking })`, after which the computer has slept so long, while
 *   `performance.now()` went on or stood still
 * @param {{prepare?: () => any}} [options] `prepare` runs in the page before the SDK is imported
 */
export function describeWithStub(title, define, { prepare = () => {} } = {}) {
  for (const engine of chosenEngines()) {
    describe(`${title} in ${ENGINES[engine].title}`, () => {
      let time = START
      let site
      let browser
      const stub = createStub(() => time)
      const run = (work, ...args) => browser.run(work, ...args)
      before(async () => {
        site = await startSite()
        await stub.start()
        browser = await openBrowser(engine)
      })
      after(async () => {
        await browser?.close()
        if (stub.url) await stub.stop()
        await site?.stop()
      })
      beforeEach(async () => {
        time = START
        stub.reply()
        await browser.webdriver.get(`${site.url}/blank.html`)
        await run(
          async (start, foreign) => {
            await import('/uncaught.js')
            const { installClock } = await import('/clock.js')
            installClock(start, foreign)
          },
          START,
          SCRIPT_TIMEOUT,
        )
        await run(prepare)
        await run(async (options) => {
          Object.assign(globalThis, await import('/approov.js'), await import('/flow.js'), { options })
          globalThis.outcome = (promise) =>
            promise.then(
              (value) => value,
              (error) => `${error.name} ${error.code}`,
            )
        }, stub.options())
      })
      afterEach(async () => {
        const uncaught = await run(async () => (await import('/uncaught.js')).uncaught())
        assert.deepEqual(uncaught, [])
      })
      define({
        stub,
        run,
        async advance(milliseconds) {
          time += milliseconds
          await run((milliseconds) => clock.advance(milliseconds), milliseconds)
        },
        async sleep(milliseconds, how) {
          time += milliseconds
          await run((milliseconds, how) => clock.sleep(milliseconds, how), milliseconds, how)
        },
      })
    })
  }
}
