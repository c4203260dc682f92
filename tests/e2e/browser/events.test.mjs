// Events and the end of a session.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { describeWithStub, HOUR, respond } from '../harness/stub.mjs'

describeWithStub('events', ({ stub, run, advance, sleep }) => {
  /** Begins a session with its first token, and notes all events from before it. */
  const begin = () =>
    run(async () => {
      globalThis.heard = []
      const types = /** @type {any[]} */ (['session', 'sessionexpiring', 'sessionend', 'tokenrefresh', 'error'])
      for (const type of types) {
        Approov.on(type, (/** @type {any} */ event) =>
          heard.push([event.type, event.code ?? event.api ?? event.error?.code ?? event.expires]),
        )
      }
      await Approov.initializeSession(options)
      globalThis.token = await Approov.fetchToken('api', { recaptchaToken: 'r' })
    })
  /** What was heard since the last time. */
  const news = () => run(async () => (await new Promise((resolve) => setTimeout(resolve)), globalThis.heard.splice(0)))

  test('a session is told with its first token, and not with its key', async () => {
    await begin()
    const [[type, expires], token, ...rest] = await news()
    assert.equal(type, 'session')
    assert.ok(expires > Date.UTC(2030, 0, 1) + HOUR, `${expires}`)
    assert.deepEqual([token, rest], [['tokenrefresh', 'api'], []])
  })

  test('late listeners are told of the session, and of its end until the next', async () => {
    await begin()
    const late = () =>
      run(async () => {
        const told = []
        for (const type of /** @type {const} */ (['session', 'sessionend', 'tokenrefresh']))
          Approov.on(type, (event) => told.push(event.type))
        await new Promise((resolve) => setTimeout(resolve))
        return told
      })
    assert.deepEqual(await late(), ['session'])
    await run(() => Approov.endSession())
    assert.deepEqual(await late(), ['sessionend'])
    await begin()
    assert.deepEqual(await late(), ['session'])
  })

  test('a session that ends soon is told once, five minutes before or as long as a listener asks for', async () => {
    await begin()
    await run((lead) => void Approov.on('sessionexpiring', () => heard.push(['early']), { lead }), HOUR)
    await news()
    await advance(HOUR - 60_000)
    assert.deepEqual(await news(), [])
    await advance(120_000)
    assert.deepEqual(await news(), [['early']])
    await advance(HOUR - 360_000 - 60_000)
    assert.deepEqual(await news(), [])
    await advance(120_000)
    assert.deepEqual(
      (await news()).map(([type]) => type),
      ['sessionexpiring'],
    )
    await advance(HOUR)
    assert.deepEqual(await news(), [['sessionend', 'session-expired']])
  })

  test('a computer that slept: what is due is told when the page is shown', async () => {
    await begin()
    await news()
    await sleep(2 * HOUR, { isTicking: false })
    await run(() => globalThis.dispatchEvent(new Event('online')))
    const types = (await news()).map(([type, code]) => `${type} ${code}`)
    assert.ok(
      types.length >= 1 && types.every((type) => /^(sessionexpiring|sessionend session-expired)/.test(type)),
      `${types}`,
    )
  })

  test('a hidden page is not told that its session ends soon until it is shown', async () => {
    await begin()
    await news()
    await run(() => void Object.defineProperty(document, 'hidden', { value: true, configurable: true }))
    await advance(2 * HOUR - 120_000)
    assert.deepEqual(await news(), [])
    await run(() => {
      delete (/** @type {any} */ (document).hidden)
      document.dispatchEvent(new Event('visibilitychange'))
    })
    assert.deepEqual(
      (await news()).map(([type]) => type),
      ['sessionexpiring'],
    )
  })

  test('initializeSession in place of a session: replaced; a refused refresh token: session-expired', async () => {
    await begin()
    await news()
    await run(() => Approov.initializeSession(options))
    assert.deepEqual(await news(), [['sessionend', 'replaced']])
    await run(() => Approov.fetchToken('api', { recaptchaToken: 'r2' }))
    await news()
    stub.reply((response) => respond(response, 401, { 'aprv-invalid-refresh-token': '' }))
    await run(() => outcome(Approov.fetchToken('other')))
    assert.deepEqual(await news(), [['sessionend', 'session-expired']])
  })

  test('a refresh in the background that fails is an error of nobody', async () => {
    await begin()
    await advance(100_000)
    await news()
    stub.reply((response) => respond(response, 500, { 'aprv-internal': '' }))
    await run(() => Approov.fetchToken('api'))
    await stub.received(1)
    for (let retry = 0; retry < 2; retry++) {
      await run(() => clock.timer(100, 800))
      await advance(800)
    }
    await stub.received(3)
    await run(async () => {
      while (!heard.length) await new Promise((resolve) => setTimeout(resolve))
    })
    assert.deepEqual(await news(), [['error', 'service']])
  })

  test('a listener is called in a microtask, may call anything, and what it throws is reported and stops nobody', async () => {
    const order = await run(async () => {
      const order = []
      const reported = new Promise((resolve) => {
        globalThis.reportError = (error) => resolve(error.message)
      })
      Approov.on('session', () => {
        throw new Error('of a listener')
      })
      const inner = new Promise((resolve) => Approov.on('session', () => resolve(Approov.getExpiries())))
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
      Approov.on('session', () => order.push('listener'))
      order.push('after on')
      return [(await reported) === 'of a listener', 'session' in (await inner), ...order]
    })
    assert.deepEqual(order, [true, true, 'after on', 'listener'])
  })

  test('a listener that is removed, by function or signal, is not called any more', async () => {
    const calls = await run(async () => {
      let calls = 0
      const controller = new AbortController()
      const remove = Approov.on('session', () => (calls += 1))
      Approov.on('session', () => (calls += 1), { signal: controller.signal })
      Approov.on('session', () => (calls += 1), { signal: AbortSignal.abort() })
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
      remove()
      controller.abort()
      await new Promise((resolve) => setTimeout(resolve))
      const before = calls
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r2' })
      await new Promise((resolve) => setTimeout(resolve))
      return calls - before
    })
    assert.equal(calls, 0)
  })

  test('a listener that is removed leaves nothing at a signal that lives on', async () => {
    const left = await run(() => {
      const { signal } = new AbortController()
      let count = 0
      signal.addEventListener = function (...args) {
        count += 1
        return Reflect.apply(EventTarget.prototype.addEventListener, this, args)
      }
      signal.removeEventListener = function (...args) {
        count -= 1
        return Reflect.apply(EventTarget.prototype.removeEventListener, this, args)
      }
      for (let time = 0; time < 3; time++) Approov.on('session', () => {}, { signal })()
      return count
    })
    assert.equal(left, 0)
  })

  test('unusable arguments of on() are refused at once', async () => {
    const codes = await run(() => {
      const nothing = () => {}
      const calls = [
        () => Approov.on(/** @type {any} */ ('sesion'), nothing),
        () => Approov.on('session', /** @type {any} */ ('x')),
        () => Approov.on('sessionexpiring', nothing, { lead: -1 }),
        () => Approov.on('sessionexpiring', nothing, { lead: NaN }),
        () => Approov.on('session', nothing, { signal: /** @type {any} */ ({}) }),
      ]
      return calls.map((call) => {
        try {
          call()
          return 'none'
        } catch (error) {
          return error.code
        }
      })
    })
    assert.deepEqual(codes, Array(5).fill('invalid-argument'))
  })

  test('log says what happens in words, without tokens, results or keys', async () => {
    stub.reply((response, form) => respond(response, 200, { ...stub.grant(form), notes: ['a note of the service'] }))
    const lines = await run(async () => {
      const lines = []
      Approov.on('log', ({ message }) => lines.push(message))
      await Approov.initializeSession(options)
      globalThis.token = await Approov.fetchToken('api', { recaptchaToken: 'the result' })
      await new Promise((resolve) => setTimeout(resolve))
      return { lines, leaks: lines.filter((line) => line.includes(token) || line.includes('the result')) }
    })
    assert.deepEqual(lines.leaks, [])
    assert.match(lines.lines[0], /^GET http.*\/attest: 204$/)
    assert.match(lines.lines[1], /^POST http.*\/attest: 200$/)
    assert.equal(lines.lines[2], 'the service says: a note of the service')
  })

  test('endSession: nothing of the session is left, and the next call begins as at page load', async () => {
    await begin()
    await news()
    const after = await run(async () => {
      const ending = Approov.endSession()
      const at_once = await Promise.all([outcome(Approov.fetchToken('api')), outcome(Approov.getExpiries())])
      const value = await ending
      return [
        value === undefined,
        ...at_once,
        await outcome(Approov.getDPoPToken('GET', 'https://a/')),
        await outcome(Approov.initializeSession()),
      ]
    })
    assert.deepEqual(after, [
      true,
      'ApproovSessionError not-initialized',
      'ApproovSessionError not-initialized',
      'ApproovSessionError not-initialized',
      'ApproovError invalid-argument',
    ])
    assert.deepEqual(await news(), [['sessionend', 'ended']])
    await run(async () => {
      await Approov.initializeSession(options)
      await Approov.fetchToken('api', { recaptchaToken: 'r' })
    })
    assert.deepEqual(
      (await news()).map(([type]) => type),
      ['session', 'tokenrefresh'],
    )
  })

  test('endSession rejects calls under way with session-expired, whatever they wait for', async () => {
    await begin()
    await news()
    const release = stub.hold()
    await run(() => {
      globalThis.calls = [
        outcome(Approov.fetchToken('other')),
        outcome(Approov.fetchToken('third', { recaptchaToken: 'new' })),
      ]
    })
    await stub.received(1)
    const ended = await run(async () => {
      await Approov.endSession()
      return Promise.all(calls)
    })
    assert.deepEqual(ended, Array(2).fill('ApproovSessionError session-expired'))
    release()
    assert.deepEqual(
      (await news()).map(([type, code]) => `${type} ${code}`),
      ['sessionend ended'],
    )
  })

  test('endSession while the first session begins, and while a renewal waits for its check', async () => {
    const outcomes = await run(async () => {
      const first = outcome(Approov.initializeSession(options))
      const token = outcome(Approov.fetchToken('api', { recaptchaToken: 'r' }))
      await Approov.endSession()
      let reason
      const apiFetch = Approov.createFetch({
        origins: ['https://api.example'],
        session: options,
        renew: ({ signal }) => new Promise(() => signal.addEventListener('abort', () => (reason = signal.reason.code))),
      })
      const renewing = outcome(apiFetch.renew())
      while (clock.timers().every((delay) => delay !== 120_000)) await new Promise((resolve) => setTimeout(resolve))
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setTimeout(resolve))
      await Approov.endSession()
      return [await first, await token, await renewing, reason]
    })
    assert.deepEqual(outcomes, [
      'ApproovSessionError session-expired',
      'ApproovSessionError session-expired',
      'ApproovSessionError session-expired',
      'session-expired',
    ])
  })

  test('endSession without a session, and twice, is nothing', async () => {
    await run(async () => {
      globalThis.heard = []
      Approov.on('sessionend', (event) => heard.push([event.code]))
      await Promise.all([Approov.endSession(), Approov.endSession()])
    })
    assert.deepEqual(await news(), [])
  })

  test('errors name their codes where consoles print them', async () => {
    stub.reply((response) => respond(response, 400, { 'aprv-api-not-found': 'api', 'aprv-other': '' }))
    const [stack, message, plain] = await run(async () => {
      await Approov.initializeSession(options)
      const error = await Approov.fetchToken('api', { recaptchaToken: 'r' }).catch((error) => error)
      const other = await Approov.fetchToken('').catch((error) => error)
      return [error.stack.split('\n')[0], error.message, other.stack.split('\n')[0]]
    })
    assert.equal(stack, `ApproovServiceError: ${message} (service, aprv-api-not-found, aprv-other)`)
    assert.match(plain, /^ApproovError: .*\(invalid-argument\)$/)
  })

  test('the pause that the service asks for is retryAfter, in milliseconds', async () => {
    stub.reply((response) => respond(response, 429, { 'aprv-too-many': '' }, { headers: { 'Retry-After': '30' } }))
    const retryAfter = await run(async () => {
      await Approov.initializeSession(options)
      return Approov.fetchToken('api', { recaptchaToken: 'r' }).catch((error) => error.retryAfter)
    })
    assert.equal(retryAfter, 30_000)
  })
})
