// The package in a browser extension (manifest version 3) under its default policy, which allows WebAssembly and no remote script.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFile, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { startProtectedApi, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { HANG } from '../harness/wait.mjs'
import { unpackTarball } from '../harness/world.mjs'

/** The ID that Chromium gives to an extension in this directory. */
const idOf = (directory) =>
  createHash('sha256')
    .update(directory)
    .digest('hex')
    .slice(0, 32)
    .replace(/./g, (digit) => String.fromCharCode(97 + parseInt(digit, 16)))

test('an extension gets a token, and its request is accepted', { timeout: 2 * HANG }, async (context) => {
  const unpacked = await unpackTarball()
  context.after(unpacked.remove)
  const directory = await realpath(await mkdtemp(join(tmpdir(), 'approov-extension-')))
  context.after(() => rm(directory, { recursive: true, force: true }))
  const origin = `chrome-extension://${idOf(directory)}`
  const service = await startService()
  context.after(service.stop)
  const { account } = service
  const api = await startProtectedApi({ secret: account.secret, allowOrigin: origin })
  context.after(api.stop)
  await copyFile(join(unpacked.path, 'approov.js'), join(directory, 'approov.js'))
  await writeFile(
    join(directory, 'manifest.json'),
    JSON.stringify({
      manifest_version: 3,
      name: 'Approov',
      version: '1',
      content_security_policy: { extension_pages: "script-src 'self' 'wasm-unsafe-eval'" },
    }),
  )
  await writeFile(
    join(directory, 'page.html'),
    '<!doctype html><meta charset="utf-8"><title>running</title><script type="module" src="page.js"></script>',
  )
  const session = { approovHost: account.url, approovSiteKey: account.site_key, altchaSiteKey: account.altcha_site_key }
  await writeFile(
    join(directory, 'page.js'),
    `import { Approov } from './approov.js'
const apiFetch = Approov.createFetch({ origins: ['${api.url}'], session: ${JSON.stringify(session)} })
const response = apiFetch('${api.url}/shapes', { method: 'POST', body: 'text' })
response.then(async (response) => {
  document.title = JSON.stringify([response.status, (await response.json()).proof.accepted, location.origin])
}, (error) => (document.title = String(error)))
`,
  )
  const flags = [`--load-extension=${directory}`, '--disable-features=DisableLoadExtensionCommandLineSwitch']
  const browser = await openBrowser('chromium', { flags })
  context.after(browser.close)
  await browser.webdriver.get(`${origin}/page.html`)
  await browser.webdriver.wait(async () => (await browser.webdriver.getTitle()) !== 'running', HANG)
  assert.deepEqual(JSON.parse(await browser.webdriver.getTitle()), [200, true, origin])
})
