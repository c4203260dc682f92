// Sessions: concurrent callers, initializeSession in the middle of anything, and what drops the tokens of a session.
import assert from 'node:assert/strict'
import { test } from 'node:test'

import { describeWithStub } from '../harness/stub.mjs'

describeWithStub('sessions', ({ stub, run, advance }) => {
  test('two lazy callers at once both end with a token', async () => {
    const { tokens, calls } = await run(async () => {
      let calls = 0
      const lazily = async () => {
        try {
          return await Approov.fetchToken('api')
        } catch (error) {
          if (!(error instanceof ApproovSessionError)) throw error
          await Approov.initializeSession(options)
          // One of them a turn of the event loop later than the others.
          if (calls % 2) await new Promise((resolve) => setTimeout(resolve))
          return Approov.fetchToken('api', { recaptchaToken: `result ${(calls += 1)}` })
        }
      }
      return { tokens: await Promise.all([lazily(), lazily(), lazily()]), calls }
    })
    assert.equal(calls, 3)
    for (const token of tokens) assert.match(token, /^token\./)
  })

  test('initializeSession in the middle: the old call settles, and nothing of it reaches the new session', async () => {
    const release = stub.hold()
    await run(async () => {
      await Approov.initializeSession(options)
      globalThis.old = outcome(Approov.fetchToken('api', { recaptchaToken: 'old' }))
      globalThis.oldProof = await Approov.getDPoPToken('GET', 'https://a/')
    })
    await stub.received(1)
    const between = await run(async () => {
      const again = Approov.initializeSession()
      // Not awaited: what follows is of the new session all the same.
      const proof = Approov.getDPoPToken('GET', 'https://a/')
      const expiries = Approov.getExpiries()
      const token = outcome(Approov.fetchToken('api'))
      await again
      const key = (proof) => JSON.parse(atob(proof.split('.')[0].replaceAll('-', '+').replaceAll('_', '/'))).jwk.x
      return { isNewKey: key(await proof) !== key(oldProof), expiries: await expiries, token: await token }
    })
    assert.deepEqual(between, { isNewKey: true, expiries: {}, token: 'ApproovSessionError results-required' })
    release()
    assert.match(await run(() => old), /^token\./)
    assert.deepEqual(await run(async () => [await Approov.getExpiries(), await outcome(Approov.fetchToken('api'))]), [
      {},
      'ApproovSessionError results-required',
    ])
  })

  test('calls right after the first initializeSession wait for it', async () => {
    const outcomes = await run(async () => {
      const calls = [
        Approov.initializeSession(options),
        Approov.fetchToken('api', { recaptchaToken: 'r' }),
        Approov.getDPoPToken('GET', 'https://a/'),
        Approov.messageSignature([1]),
        Approov.getExpiries(),
      ]
      return Promise.all(calls.map(outcome))
    })
    assert.match(outcomes[1], /^token\./)
    assert.equal(outcomes[2].split('.').length, 3)
    assert.deepEqual(outcomes[4], {})
    assert.equal(stub.forms().length, 1)
  })

  test('an initializeSession that fails leaves the session as it was', async () => {
    const same = await run(async () => {
      await Approov.initializeSession(options)
      const token = await Approov.fetchToken('api', { recaptchaToken: 'r' })
      const refused = await outcome(Approov.initializeSession({ ...options, approovHost: 'https://wrong/' }))
      return refused === 'ApproovError invalid-argument' && token === (await Approov.fetchToken('api'))
    })
    assert.equal(same, true)
  })

  test('one caller who aborts does not abort the others', async () => {
    const release = stub.hold()
    await run(async () => {
      await Approov.initializeSession(options)
      globalThis.controller = new AbortController()
      globalThis.calls = [{ signal: controller.signal }, {}, { timeout: 50 }].map((more) =>
        outcome(Approov.fetchToken('api', { recaptchaToken: 'r', ...more })),
      )
    })
    await stub.received(1)
    const aborted = await run(() => {
      controller.abort(new Error('enough'))
      return calls[0]
    })
    assert.equal(aborted, 'ApproovFetchError aborted')
    await advance(50)
    assert.equal(await run(() => calls[2]), 'ApproovFetchError timeout')
    release()
    assert.match(await run(() => calls[1]), /^token\./)
    assert.equal(stub.forms().length, 1)
  })

  test('a changed payload or result drops all cached tokens, the same one drops none', async () => {
    const posts = []
    const step = async (api, more) => {
      await run((api, more) => Approov.fetchToken(api, more), api, more)
      posts.push(stub.forms().length)
    }
    await run(() => Approov.initializeSession(options))
    await step('a', { recaptchaToken: 'r1' })
    await step('b', {})
    await step('a', { recaptchaToken: 'r1' })
    await step('b', { recaptchaToken: 'r1' })
    assert.deepEqual(posts.splice(0), [1, 2, 2, 2])
    await step('a', { payload: 'x' })
    await step('b', { payload: 'x' })
    await step('a', { payload: 'x' })
    await step('a', {})
    assert.deepEqual(posts.splice(0), [3, 4, 4, 5])
    await step('a', { recaptchaToken: 'r2' })
    await step('b', {})
    await step('b', { recaptchaToken: 'r2' })
    assert.deepEqual(posts.splice(0), [6, 7, 7])
    const sent = stub.forms().map((form) => new URLSearchParams(form).get('recaptcha-token'))
    assert.deepEqual(sent, ['r1', null, null, null, null, 'r2', null])
  })
})
