// A stand-in for the web protection service that answers as a test says, well-formed or not.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, afterEach, before, beforeEach } from 'node:test'

import { startWorld } from './world.mjs'

const CORS = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Allow-Headers': 'dpop, content-type',
  'Access-Control-Allow-Methods': 'GET, POST',
  'Access-Control-Expose-Headers': 'DPoP-Nonce, Date, Retry-After',
  'Access-Control-Max-Age': '7200',
}
const HOUR = 3_600_000

/** What a service that grants everything answers to an attest request. */
export function grant(form, { lifetime = 120, session = 2 * HOUR, now = Date.now() } = {}) {
  const apis = new URLSearchParams(form).getAll('api')
  return {
    tokens: Object.fromEntries(apis.map((api) => [api, `token.${Math.random().toString(36).slice(2)}.for-${api}`])),
    'token-lifetime': lifetime,
    'refresh-token': `refresh-${Math.random().toString(36).slice(2)}`,
    expiries: { session: now + session, 'recap:re': now + session },
    'server-time': now,
  }
}

/** Writes an answer: a status with its phrase, an object as JSON or a text, further headers. */
export function answer(response, status, body, { phrase, headers = {} } = {}) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const all = { 'Content-Type': 'application/json', 'DPoP-Nonce': `nonce-${Math.random()}`, ...CORS, ...headers }
  if (phrase) response.writeHead(status, phrase, all)
  else response.writeHead(status, all)
  response.end(text)
}

/**
 * Starts the stand-in.
 *
 * @returns `reply(handler)`: what happens to attest requests from now on: `handler(response, form, count)`, where `count` starts at 1;
 *   `forms`: the bodies of the attest requests since then; `requests`: method and URL of everything since then
 */
export async function startStub() {
  let handler
  let forms = []
  let requests = []
  let cut = 0
  const granting = (response, form) => answer(response, 200, grant(form))
  const server = createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`)
    if (request.method === 'OPTIONS') return response.writeHead(204, CORS).end()
    if (request.method === 'GET') return response.writeHead(204, { 'DPoP-Nonce': 'nonce-1', ...CORS }).end()
    let form = ''
    request.setEncoding('utf8').on('data', (chunk) => (form += chunk))
    response.on('close', () => {
      if (!response.writableFinished) cut += 1
    })
    request.on('end', () => handler(response, form, forms.push(form)))
  })
  const reply = (next = granting) => {
    handler = next
    forms = []
    requests = []
    cut = 0
  }
  reply()
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    reply,
    forms: () => forms,
    requests: () => requests,
    /** How many requests the browser gave up before their answer was whole. */
    cut: () => cut,
    stop: () =>
      new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      }),
  }
}

/** What a page with the stand-in as its service gives to `initializeSession`. */
export const stubOptions = (stub) => ({ approovHost: stub.url, approovSiteKey: 'site', recaptchaSiteKey: 're' })

/**
 * The hooks of a suite against the stand-in: one browser and one stand-in for all tests, for each a fresh page on which `open` runs with the
 * options of `initializeSession`, and at its end nothing uncaught.
 *
 * @returns `{ world, stub }`, filled in before the first test
 */
export function useStub(engine, open) {
  const suite = {}
  before(async () => {
    suite.world = await startWorld(engine)
    suite.stub = await startStub()
  })
  after(async () => {
    await suite.stub?.stop()
    await suite.world?.stop()
  })
  beforeEach(async () => {
    suite.stub.reply()
    await suite.world.freshPage()
    await suite.world.run(() => {
      globalThis.uncaught = []
      addEventListener('unhandledrejection', (event) => uncaught.push(`rejection: ${event.reason}`))
      addEventListener('error', (event) => uncaught.push(`error: ${event.message}`))
    })
    await suite.world.run(open, stubOptions(suite.stub))
  })
  afterEach(async () => {
    assert.deepEqual(await suite.world.run(() => new Promise((resolve) => setTimeout(() => resolve(uncaught), 20))), [])
  })
  return suite
}
