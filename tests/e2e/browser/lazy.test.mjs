// A plain page, one copied file next to it, and the lazy pattern.
import assert from 'node:assert/strict'
import { mkdtemp, copyFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { By, until } from 'selenium-webdriver'

import { serveSite, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { unpackTarball } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`a plain page in ${ENGINES[engine].title}`, () => {
    test('gets a token with one copied file and the lazy pattern', async (context) => {
      const directory = await mkdtemp(join(tmpdir(), 'approov-plain-'))
      context.after(() => rm(directory, { recursive: true, force: true }))
      const unpacked = await unpackTarball()
      context.after(unpacked.remove)
      await copyFile(fileURLToPath(new URL('../pages/lazy/index.html', import.meta.url)), join(directory, 'index.html'))
      await copyFile(join(unpacked.path, 'approov.js'), join(directory, 'approov.js'))
      const site = await serveSite({ mounts: { '/': directory } })
      context.after(site.stop)
      const service = await startService()
      context.after(service.stop)
      const browser = await openBrowser(engine)
      context.after(browser.close)

      const { url, site_key: approovSiteKey, recaptcha_site_key: recaptchaSiteKey } = service.account
      await browser.webdriver.get(
        `${site.url}/?${new URLSearchParams({ approovHost: url, approovSiteKey, recaptchaSiteKey })}`,
      )
      const shown = await browser.webdriver.findElement(By.id('token'))
      await browser.webdriver.wait(until.elementTextMatches(shown, /\S/), HANG)
      const token = await shown.getText()
      assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/)
      assert.deepEqual(
        site.requests.map((request) => request.split('?')[0]),
        ['GET /', 'GET /approov.js'],
      )
    })
  })
}
