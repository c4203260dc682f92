// The packed package in a worker and in a service worker.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`workers in ${ENGINES[engine].title}`, () => {
    let world
    before(async () => {
      world = await startWorld(engine)
    })
    after(() => world?.stop())

    for (const [kind, scope] of [
      ['worker', 'DedicatedWorkerGlobalScope'],
      ['service worker', 'ServiceWorkerGlobalScope'],
    ]) {
      for (const keyStorage of ['webcrypto', 'wasm']) {
        test(`a ${kind} gets a token and calls the API, ${keyStorage} key`, async () => {
          await world.freshPage()
          const outcome = await world.run(
            async (settings, kind, keyStorage) => {
              const { passCheck, sessionOptions } = await import('/flow.js')
              const message = {
                options: sessionOptions(settings, 'hcaptcha', { keyStorage }),
                api: settings.api,
                apiUrl: settings.apiUrl,
                result: await passCheck(settings, 'hcaptcha'),
              }
              let target
              if (kind === 'worker') {
                target = new Worker('/worker.js', { type: 'module' })
              } else {
                for (const old of await navigator.serviceWorker.getRegistrations()) await old.unregister()
                const registration = await navigator.serviceWorker.register('/worker.js', { type: 'module' })
                target = registration.installing ?? registration.waiting ?? registration.active
                await new Promise((resolve, reject) => {
                  const check = () => {
                    if (target.state === 'activated') resolve(undefined)
                    if (target.state === 'redundant') reject(new Error('the service worker was not installed'))
                  }
                  target.addEventListener('statechange', check)
                  check()
                })
              }
              const { port1, port2 } = new MessageChannel()
              return new Promise((resolve, reject) => {
                port1.onmessage = (event) => resolve(event.data)
                target.onerror = (event) => reject(new Error(`the ${kind} did not start: ${event.message}`))
                target.postMessage(message, [port2])
              })
            },
            world.settings,
            kind,
            keyStorage,
          )
          assert.equal(outcome.error, undefined)
          assert.equal(outcome.value.scope, scope)
          assert.equal(outcome.value.status, 200)
          assert.equal(outcome.value.body.proof.accepted, true)
          assert.ok(outcome.value.expiries.session > Date.now())
        })
      }
    }
  })
}
