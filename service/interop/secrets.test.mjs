// What follows from the secret that backends hold: nothing. A program in another language tries, which has no code of ours.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { PUBLIC, configure, session, start } from './service.mjs'

const SITE_KEY = 'interop'
const API = 'es.example'
const skip = process.env.PYTHON ? false : 'PYTHON is not set'

let directory, file, simulators, service, honest

before(async () => {
  directory = mkdtempSync(join(tmpdir(), 'approov-secrets-'))
  simulators = await start('--dev')
  file = join(directory, 'service.toml')
  configure(file, 'account', '-add', SITE_KEY)
  configure(file, 'keyset', '-add', 'ES256', '-kid', 'es-1', '-y')
  configure(file, 'api', '-add', API, '-allowWeb', '-keySetKID', 'es-1', '-y')
  configure(file, 'api', '-add', 'hs.example', '-allowWeb', '-y')
  const check = ['-secret', `0x${'0'.repeat(40)}`, '-verifyURL', `${simulators.url}/sim/hcaptcha/siteverify`]
  configure(file, 'web', '-hcaptcha', '-add', simulators.hcaptcha_site_key, ...check, '-y')
  writeFileSync(file, `public_urls = ["${PUBLIC}"]\n${readFileSync(file, 'utf8')}`)
  service = await start('--config', file)
  const { attest, nonce } = await session(service.url)
  const response = await attest([
    ['approov-site-key', SITE_KEY],
    ['hcaptcha-site-key', simulators.hcaptcha_site_key],
    ['hcaptcha-token', `sim-pass-${randomUUID()}`],
    ['api', API],
  ])
  honest = { refresh_token: (await response.json())['refresh-token'], nonce: nonce() }
})

after(async () => {
  await service?.stop()
  await simulators?.stop()
  rmSync(directory, { recursive: true, force: true })
})

/** What comes of each attempt with this secret: `worked` or `refused` by its name. */
function attempts(secret) {
  const attempt = join(directory, 'attempt.json')
  const given = {
    ...honest,
    url: `${service.url}/attest`,
    htu: `${PUBLIC}/attest`,
    site_key: SITE_KEY,
    hcaptcha_site_key: simulators.hcaptcha_site_key,
    keyset_api: API,
    kid: 'es-1',
    public_key: configure(file, 'keyset', '-getPublic', 'es-1'),
    secret,
  }
  writeFileSync(attempt, JSON.stringify(given))
  const program = fileURLToPath(new URL('forge.py', import.meta.url))
  const said = execFileSync(process.env.PYTHON, [program, attempt], { encoding: 'utf8' })
  return said.trim().split('\n')
}

test("with the account's secret nothing can be forged and no session read", { skip }, () => {
  const said = attempts(configure(file, 'secret', '-get', 'base64'))
  assert.equal(said.length, 10, said.join('\n'))
  assert.deepEqual(
    said.filter((line) => !line.startsWith('refused: ')),
    [],
  )
})

test("the attempts are the right ones: with the service's own secret they work", { skip }, () => {
  const secret = /^session_secret = "(.+)"$/m.exec(readFileSync(file, 'utf8'))[1]
  const worked = attempts(secret).filter((line) => line.startsWith('worked: '))
  assert.deepEqual(
    worked.map((line) => line.split(': ')[1]),
    [
      'a refresh token, format 2, its own key id',
      "a refresh token, format 2, the service's key id",
      'a nonce, v2',
      'reading a session, format 2, its own key id',
      "reading a session, format 2, the service's key id",
    ],
  )
})
