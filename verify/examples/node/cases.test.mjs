// The cases of verify/tests/data/cases.json, with the verdicts of the Rust library.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { createVerifier, memory, publicUrl, Refusal } from './verify.mjs'

const file = JSON.parse(readFileSync(new URL('../../tests/data/cases.json', import.meta.url), 'utf8'))
const mine = file.cases.filter(({ runs }) => runs.includes('node'))

function verifierFor({
  channel,
  proof,
  message,
  query,
  nonce,
  accepted_nonce: accepted,
  require_binding: requireBinding,
  ...other
}) {
  assert.deepEqual(other, {}, 'an option that this example does not have')
  const acceptNonce = accepted === undefined ? undefined : (given) => given === accepted
  return createVerifier({ secret: file.secret, channel, proof, message, query, nonce, acceptNonce, requireBinding })
}

async function verdict(verify, { public_url: base, target, ...request }) {
  try {
    await verify(base === undefined ? request : { ...request, url: publicUrl(base)(target) }, file.now * 1000)
    return null
  } catch (error) {
    if (error instanceof Refusal) return error.challenge
    throw error
  }
}

assert.ok(mine.length > 300)
for (const { name, config, earlier, request, challenge } of mine) {
  test(name, async () => {
    const verify = verifierFor(config)
    for (const before of earlier) await verdict(verify, before)
    assert.equal(await verdict(verify, request), challenge)
  })
}

test('a full memory refuses instead of forgetting', () => {
  const firstUse = memory(1)
  assert.equal(firstUse('a', 100, 0, 'k'), true)
  assert.equal(firstUse('a', 100, 100, 'k'), false)
  assert.throws(() => firstUse('b', 200, 100, 'k'), /full/)
  assert.equal(firstUse('b', 5000, 2000, 'k'), true)
  assert.equal(firstUse('b', 9000, 5001, 'k'), true)
})

test('one session cannot fill the memory for all others', () => {
  const firstUse = memory(2000)
  const flood = (holder, until, now) => {
    for (let count = 0; ; count++) {
      try {
        assert.equal(firstUse(`${holder} ${count}`, until, now, holder), true)
      } catch (refusal) {
        assert.equal(refusal.status, 429, refusal)
        return count
      }
    }
  }
  assert.equal(flood('attacker', 100_000, 0), 1001)
  assert.equal(firstUse('attacker 0', 100_000, 0, 'attacker'), false)
  for (let holder = 0; holder < 30; holder++)
    for (let count = 0; count < 10; count++) assert.equal(firstUse(`${holder} ${count}`, 100_000, 0, holder), true)
  // When its keys have expired, it is served again.
  assert.equal(firstUse('attacker 0', 300_000, 100_001, 'attacker'), true)
  assert.equal(flood('other', 300_000, 100_001), 1000)
})

test('a public URL is taken with a slash at its end, and refused when it is none', () => {
  assert.equal(publicUrl('https://api.example.com/')('/x?y'), 'https://api.example.com/x?y')
  for (const text of [undefined, '', 'api.example.com', '//api.example.com', 'ftp://a/', 'https://u@a/', 'https://a/%'])
    assert.throws(() => publicUrl(text), TypeError)
})
