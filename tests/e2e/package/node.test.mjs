// The package in Node: servers that render pages import it, tests call it.
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { startService } from '../../../www-demo/stack.mjs'
import { HANG } from '../harness/wait.mjs'
import { run } from './fixtures.mjs'

describe('in Node', () => {
  let directory
  let service
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'approov-node-'))
    await writeFile(join(directory, 'package.json'), '{ "private": true, "type": "module" }')
    await run('npm', ['install', '--no-save', '--offline', process.env.APPROOV_TARBALL], { cwd: directory })
    service = await startService()
  })
  after(async () => {
    await service?.stop()
    if (directory) await rm(directory, { recursive: true, force: true })
  })

  /** Runs a module in the project and returns what it prints as JSON. */
  async function printed(script) {
    const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: directory,
      timeout: HANG,
    })
    assert.equal(stderr, '')
    return JSON.parse(stdout)
  }

  const session = () => ({
    approovHost: service.url,
    approovSiteKey: service.account.site_key,
    hcaptchaSiteKey: service.account.hcaptcha_site_key,
  })

  test('importing it by name leaves nothing running and nothing global', async () => {
    const found = await printed(`
      const before = new Set(Reflect.ownKeys(globalThis))
      const modules = [await import('approov-web-sdk'), await import('approov-web-sdk/lite'), await import('approov-web-sdk/approov.js')]
      console.log(JSON.stringify({
        names: modules.map((module) => Object.keys(module).length),
        added: Reflect.ownKeys(globalThis).filter((key) => !before.has(key)),
        active: process.getActiveResourcesInfo().filter((kind) => !/Pipe|TTY|FSReq|CloseReq/.test(kind)),
      }))`)
    assert.deepEqual(found, { names: [6, 6, 7], added: [], active: [] })
  })

  test('it gets a token, as tests of an app do', async () => {
    const { token, proof } = await printed(`
      import { Approov } from 'approov-web-sdk'
      await Approov.initializeSession(${JSON.stringify(session())})
      const token = await Approov.fetchToken('api.example.com', { hcaptchaToken: '10000000-aaaa-bbbb-cccc-000000000001', timeout: ${HANG} })
      console.log(JSON.stringify({ token, proof: await Approov.getDPoPToken('GET', 'https://api.example.com/', '', token) }))`)
    assert.equal(token.split('.').length, 3)
    assert.equal(proof.split('.').length, 3)
  })

  test('without WebAssembly, it begins a session all the same', async () => {
    const code = await printed(`
      delete globalThis.WebAssembly
      // Node's own needs WebAssembly.
      globalThis.fetch = async () => {
        throw new TypeError('no network')
      }
      const { Approov } = await import('approov-web-sdk')
      await Approov.initializeSession(${JSON.stringify(session())})
      console.log(JSON.stringify(await Approov.fetchToken('api.example.com').catch(({ code }) => code)))`)
    assert.equal(code, 'results-required')
  })

  for (const name of ['fetch', 'crypto']) {
    test(`without ${name}, importing works and a call says what is missing`, async () => {
      const error = await printed(`
        delete globalThis.${name}
        const { Approov, ApproovError } = await import('approov-web-sdk')
        const error = await Approov.initializeSession(${JSON.stringify(session())}).catch((error) => error)
        console.log(JSON.stringify([error instanceof ApproovError, error.code, error.message]))`)
      assert.deepEqual(error, [true, 'unsupported', `the Approov SDK needs ${name}, missing here`])
    })
  }
})
