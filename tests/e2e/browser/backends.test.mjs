// Tokens and proofs of a real browser session, checked by the verifier's packages for npm and PyPI.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'

import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

const PUBLIC_URL = 'https://api.example.com'

/** The verdict of a package on a request that is described as `{ secret, request: { method, target, headers } }`. */
const BACKENDS = {
  async npm({ secret, request }) {
    const { createVerifier } = await import(pathToFileURL(`${process.env.APPROOV_VERIFY_NPM}/index.js`).href)
    return createVerifier({ publicUrl: PUBLIC_URL, secret, proof: 'required' }).check(request)
  },
  async PyPI(given) {
    const script = fileURLToPath(new URL('../harness/verdict.py', import.meta.url))
    const child = spawn(process.env.PYTHON ?? 'python3', [script, PUBLIC_URL], { stdio: ['pipe', 'pipe', 'inherit'] })
    child.stdin.end(JSON.stringify(given))
    const said = await text(child.stdout)
    assert.ok(said, 'the Python program said nothing')
    return JSON.parse(said)
  },
}

for (const engine of chosenEngines()) {
  describe(`the packages with a session of ${ENGINES[engine].title}`, () => {
    const url = `${PUBLIC_URL}/shapes`
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
      const verdict = ({ token, proof }, method = 'POST', target = '/shapes') =>
        BACKENDS[backend]({
          secret: world.service.account.secret,
          request: {
            method,
            target,
            headers: [
              ['Approov-Token', token],
              ['Dpop', proof],
            ],
          },
        })

      test(`${backend} accepts token and proof, and reads the claims`, async () => {
        const { ok, claims, detail } = await verdict(passed)
        assert.equal(ok, true, detail)
        assert.ok(Object.keys(claims.embed)[0].startsWith('fp:'))
      })

      test(`${backend} refuses the token of a failed check`, async () => {
        assert.equal((await verdict(failed)).code, 'token_signature')
      })

      test(`${backend} refuses the proof for another method, another URL, another token`, async () => {
        assert.equal((await verdict(passed, 'GET')).code, 'proof_method')
        assert.equal((await verdict(passed, 'POST', '/shapes/other')).code, 'proof_url')
        assert.equal((await verdict({ token: passed.token, proof: failed.proof })).code, 'proof_token_hash')
      })
    }
  })
}
