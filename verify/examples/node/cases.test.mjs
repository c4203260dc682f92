// The cases of verify/tests/data/cases.json, with the verdicts of the Rust library.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { createVerifier, Refusal } from './verify.mjs'

const file = JSON.parse(readFileSync(new URL('../../tests/data/cases.json', import.meta.url), 'utf8'))
const mine = file.cases.filter(({ runs }) => runs.includes('node'))

function verifierFor({
  channel,
  proof,
  message,
  nonce,
  accepted_nonce: accepted,
  require_binding: requireBinding,
  ...other
}) {
  assert.deepEqual(other, {}, 'an option that this example does not have')
  const acceptNonce = accepted === undefined ? undefined : (given) => given === accepted
  return createVerifier({ secret: file.secret, channel, proof, message, nonce, acceptNonce, requireBinding })
}

async function verdict(verify, request) {
  try {
    await verify(request, file.now * 1000)
    return null
  } catch (error) {
    if (error instanceof Refusal) return error.challenge
    throw error
  }
}

assert.ok(mine.length > 120)
for (const { name, config, earlier, request, challenge } of mine) {
  test(name, async () => {
    const verify = verifierFor(config)
    for (const before of earlier) await verdict(verify, before)
    assert.equal(await verdict(verify, request), challenge)
  })
}

test('a full memory refuses instead of forgetting', async () => {
  const { memory } = await import('./verify.mjs')
  const firstUse = memory(1)
  assert.equal(firstUse('a', 100, 0), true)
  assert.equal(firstUse('a', 100, 100), false)
  assert.throws(() => firstUse('b', 200, 100), /full/)
  assert.equal(firstUse('b', 5000, 2000), true)
})
