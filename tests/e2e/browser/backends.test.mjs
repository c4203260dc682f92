// Tokens and proofs of a real browser session, checked by the example backends in Node and Python.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

const example = (path) => fileURLToPath(new URL(`../../../verify/examples/${path}`, import.meta.url))
const BACKENDS = {
  Node: [process.execPath, example('node/check.mjs')],
  Python: [process.env.PYTHON ?? 'python3', example('python/check.py')],
}

/** The verdict of an example backend. */
async function check(backend, given) {
  const [program, script] = BACKENDS[backend]
  const child = spawn(program, [script], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(given))
  const said = await text(child.stdout)
  assert.ok(said, `${backend} said nothing`)
  return JSON.parse(said)
}

for (const engine of chosenEngines()) {
  describe(`example backends with a session of ${ENGINES[engine].title}`, () => {
    const url = 'https://api.example.com/shapes'
    let world, passed, failed
    before(async () => {
      world = await startWorld(engine)
      const visit = async (outcome) => {
        await world.freshPage()
        return world.run(
          async (settings, url, outcome) => {
            const { Approov } = await import('/approov.js')
            const { firstToken } = await import('/flow.js')
            const token = await firstToken(settings, 'fingerprint', outcome)
            return { token, proof: await Approov.getDPoPToken('POST', url, 'once', token) }
          },
          world.settings,
          url,
          outcome,
        )
      }
      passed = await visit('pass')
      failed = await visit('fail')
    })
    after(() => world?.stop())

    for (const backend of Object.keys(BACKENDS)) {
      const verdict = ({ token, proof }, method = 'POST', to = url) =>
        check(backend, {
          secret: world.service.account.secret,
          options: { proof: 'required' },
          request: {
            method,
            url: to,
            headers: [
              ['Approov-Token', token],
              ['Dpop', proof],
            ],
          },
        })

      test(`${backend} accepts token and proof, and reads the claims`, async () => {
        const { accepted, claims, detail } = await verdict(passed)
        assert.equal(accepted, true, detail)
        assert.ok(Object.keys(claims.embed)[0].startsWith('fp:'))
      })

      test(`${backend} refuses the token of a failed check`, async () => {
        assert.equal((await verdict(failed)).accepted, false)
      })

      test(`${backend} refuses the proof for another method, another URL, another token`, async () => {
        assert.equal((await verdict(passed, 'GET')).accepted, false)
        assert.equal((await verdict(passed, 'POST', `${url}/other`)).accepted, false)
        assert.equal((await verdict({ token: passed.token, proof: failed.proof })).accepted, false)
      })
    }
  })
}
