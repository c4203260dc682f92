// Fingerprint's own server library reads what the simulated agent seals, which is what the service opens (see its unit tests and
// tests/e2e/browser/checks.test.mjs).

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { DecryptionAlgorithm, unsealEventsResponse } from '@fingerprint/node-sdk'

import { start } from './service.mjs'

/** The published key of the simulator: service/src/dev/sim/keys.rs. */
const SEALED_KEY = Buffer.from('YXBwcm9vdi1zaW11bGF0b3Itc2VhbGVkLXJlc3VsdHM=', 'base64')

let service
before(async () => {
  service = await start('--dev')
})
after(() => service?.stop())

test("Fingerprint's library opens a sealed result of the simulated agent", async () => {
  const url = 'https://app.example/login'
  const response = await fetch(`${service.url}/sim/fingerprint/v4/${service.fingerprint_public_api_key}`, {
    method: 'POST',
    headers: { 'Content-Type': 'text/plain' },
    body: JSON.stringify({
      outcome: 'pass',
      visitor: 'AcxioeQKffpXF8iGQK3P',
      url,
      tags: { a: 1 },
      linked_id: 'order-1',
    }),
  })
  const { event_id, sealed_result } = await response.json()
  const open = (key) =>
    unsealEventsResponse(Buffer.from(sealed_result, 'base64'), [{ key, algorithm: DecryptionAlgorithm.Aes256Gcm }])
  const event = await open(SEALED_KEY)
  assert.equal(event.event_id, event_id)
  assert.equal(event.url, url)
  assert.ok(Math.abs(Date.now() - event.timestamp) < 60_000)
  assert.equal(typeof event.identification.visitor_id, 'string')
  await assert.rejects(open(Buffer.alloc(32, 1)))
})
