// jose (npm) plays the browser and the backend: it makes the proofs and reads every kind of token.
// Where PYTHON names an interpreter with jwcrypto, that reads them too.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as jose from 'jose'
import { PUBLIC, configure, session, start } from './service.mjs'

const KIND = {
  'hs.example': { alg: 'HS256' },
  'es.example': { alg: 'ES256', kid: 'es-1' },
  'rs.example': { alg: 'RS256', kid: 'rs-1' },
  'jwe.example': { alg: 'HS256', encrypted: true },
  'both.example': { alg: 'ES256', kid: 'es-1', encrypted: true },
}

let directory, simulators, service, account
const tokens = { pass: {}, fail: {} }

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'approov-interop-'))
  simulators = await start('--dev')
  const file = join(directory, 'service.toml')
  const run = (line) => configure(file, ...line.split(' '), ...(line.startsWith('account') ? [] : ['-y']))
  run('account -add interop')
  run('keyset -add ES256 -kid es-1')
  run('keyset -add RS256 -kid rs-1')
  for (const [domain, kind] of Object.entries(KIND)) {
    run(`api -add ${domain} -allowWeb${kind.kid ? ` -keySetKID ${kind.kid}` : ''}${kind.encrypted ? ' -jwe' : ''}`)
  }
  run(
    `web -hcaptcha -add ${simulators.hcaptcha_site_key} -secret 0x${'0'.repeat(40)} -embedResult` +
      ` -verifyURL ${simulators.url}/sim/hcaptcha/siteverify`,
  )
  account = {
    secret: Buffer.from(configure(file, 'secret', '-get', 'base64'), 'base64'),
    jweSecret: Buffer.from(configure(file, 'secret', '-get', 'base64url', '-jwe'), 'base64url'),
    publicKeys: {
      'es-1': configure(file, 'keyset', '-getPublic', 'es-1'),
      'rs-1': configure(file, 'keyset', '-getPublic', 'rs-1'),
    },
  }
  writeFileSync(file, `public_urls = ["${PUBLIC}"]\n${readFileSync(file, 'utf8')}`)
  service = await start('--config', file)
})

after(async () => {
  await service?.stop()
  await simulators?.stop()
  rmSync(directory, { recursive: true, force: true })
})

/** What a backend reads from a token, or the error that refuses it. */
async function read(token, kind) {
  if (kind.encrypted) {
    const { plaintext, protectedHeader } = await jose.compactDecrypt(token, account.jweSecret, {
      keyManagementAlgorithms: ['A256GCMKW'],
      contentEncryptionAlgorithms: ['A256GCM'],
    })
    assert.equal(protectedHeader.cty, 'JWT')
    token = new TextDecoder().decode(plaintext)
  }
  const key = kind.kid ? await jose.importSPKI(account.publicKeys[kind.kid], kind.alg) : account.secret
  const { payload, protectedHeader } = await jose.jwtVerify(token, key, { algorithms: [kind.alg], typ: 'JWT' })
  assert.equal(protectedHeader.kid, kind.kid)
  return payload
}

for (const outcome of ['pass', 'fail']) {
  test(`jose reads tokens of a check that is to ${outcome}`, async () => {
    const { attest, thumbprint } = await session(service.url)
    const response = await attest([
      ['approov-site-key', 'interop'],
      ['hcaptcha-site-key', simulators.hcaptcha_site_key],
      ['hcaptcha-token', `sim-${outcome}-${randomUUID()}`],
      ...Object.keys(KIND).map((domain) => ['api', domain]),
    ])
    const body = await response.json()
    assert.equal(response.status, 200, JSON.stringify(body))
    tokens[outcome] = body.tokens
    for (const [domain, kind] of Object.entries(KIND)) {
      if (outcome === 'fail') {
        await assert.rejects(read(body.tokens[domain], kind), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' }, domain)
        continue
      }
      const claims = await read(body.tokens[domain], kind)
      assert.equal(claims.cnf.jkt, thumbprint, domain)
      assert.equal(claims.exp - claims.iat, 120)
      assert.match(claims.arc, /^[A-Z2-7]{10}$/)
      const embedded = claims.embed[`hcap:${simulators.hcaptcha_site_key}`]
      // Full results only where the token is encrypted.
      assert.deepEqual('success' in embedded, Boolean(kind.encrypted), domain)
      assert.ok(embedded.challenge_ts && embedded.hostname)
    }
  })
}

test('a Python library reads the same tokens', { skip: process.env.PYTHON ? false : 'PYTHON is not set' }, () => {
  const file = join(directory, 'tokens.json')
  writeFileSync(
    file,
    JSON.stringify({
      kinds: KIND,
      tokens,
      secret: account.secret.toString('base64'),
      jwe_secret: account.jweSecret.toString('base64'),
      public_keys: account.publicKeys,
    }),
  )
  const script = fileURLToPath(new URL('tokens.py', import.meta.url))
  const said = execFileSync(process.env.PYTHON, [script, file], { encoding: 'utf8' })
  assert.match(said, /^10 tokens read as they should$/m)
})
