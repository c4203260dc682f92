// Loads a page with the plain lazy pattern again and again and counts how each visit ends. For faults of an engine that come once
// in hundreds of loads; not part of the tests. It runs as they do, with the programs and the tarball named in the environment:
//
//   APPROOV_WEB_SERVICE=… APPROOV_TARBALL=… node page-loads.mjs webkit 3000
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { serveSite, startService } from '../../www-demo/stack.mjs'
import { openBrowser } from './harness/browser.mjs'
import { unpackTarball } from './harness/world.mjs'

const [engine = 'webkit', count = '3000'] = process.argv.slice(2)
/** After this long, one visit counts as one that never ends, milliseconds. */
const HANG = 120_000
/** Visits of one browser; WebKitGTK's grows with each. */
const VISITS_PER_BROWSER = 250

/** What is added to the page: how many instances of the WebAssembly it needed. Each beyond the first replaces one that was lost. */
const NOTES = `<script>
  globalThis.instances = 0
  WebAssembly.Instance = new Proxy(WebAssembly.Instance, {
    construct(target, values) {
      const instance = Reflect.construct(target, values)
      // Not the one that only shows whether there may be any.
      if (Object.keys(instance.exports).length) globalThis.instances += 1
      return instance
    },
  })
</script>`

const directory = await mkdtemp(join(tmpdir(), 'approov-loads-'))
const unpacked = await unpackTarball()
await copyFile(join(unpacked.path, 'approov.js'), join(directory, 'approov.js'))
const page = await readFile(fileURLToPath(new URL('./pages/lazy/index.html', import.meta.url)), 'utf8')
await writeFile(join(directory, 'index.html'), page.replace('<script', `${NOTES}<script`))
const site = await serveSite({ mounts: { '/': directory } })
const service = await startService()
const { url, site_key: approovSiteKey, recaptcha_site_key: recaptchaSiteKey } = service.account
const address = `${site.url}/?${new URLSearchParams({ approovHost: url, approovSiteKey, recaptchaSiteKey })}`

const ends = new Map()
let lost = 0
let recovered = 0
let browser
try {
  for (let visit = 0; visit < Number(count); visit += 1) {
    if (visit % VISITS_PER_BROWSER === 0) {
      await browser?.close()
      browser = await openBrowser(/** @type {any} */ (engine))
      await browser.webdriver.manage().setTimeouts({ script: HANG })
    }
    await browser.webdriver.get(address)
    const { shown, instances } = await browser.webdriver
      .executeAsyncScript((done) => {
        const place = document.getElementById('token')
        const look = () => place.textContent && done({ shown: place.textContent, instances: globalThis.instances })
        new MutationObserver(look).observe(place, { childList: true })
        look()
      })
      .catch((error) => ({ shown: `no end: ${error.message}`, instances: 0 }))
    const hasToken = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(shown)
    const end = hasToken ? 'token' : shown
    ends.set(end, (ends.get(end) ?? 0) + 1)
    lost += Math.max(0, instances - 1)
    if (hasToken && instances > 1) recovered += 1
    if (visit % 100 === 99) console.log(visit + 1, { lost, recovered, ...Object.fromEntries(ends) })
  }
} finally {
  await browser?.close()
  await service.stop()
  await site.stop()
  await unpacked.remove()
  await rm(directory, { recursive: true, force: true })
}
console.log(JSON.stringify({ engine, lost, recovered, ends: Object.fromEntries(ends) }))
process.exitCode = [...ends.keys()].some((end) => end !== 'token') ? 1 : 0
