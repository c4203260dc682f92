// The README's snippets for frameworks, as they stand, in a project with all of them.
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { serveSite, startProtectedApi } from '../../../www-demo/stack.mjs'
import { HANG } from '../harness/wait.mjs'
import { logComplete, startWorld } from '../harness/world.mjs'
import { installFixture } from './fixtures.mjs'

const README = new URL('../../../pkg-template/README.md', import.meta.url)
const SNIPPETS = ['api.js', 'react.js', 'vue.js', 'svelte.js', 'axios.js', 'angular.ts']

describe('in a project with', () => {
  let world
  let fixture
  let site
  let api
  before(
    async () => {
      world = await startWorld('chromium')
      fixture = await installFixture('frameworks')
      site = await serveSite({ mounts: { '/': join(fixture.path, 'dist') } })
      api = await startProtectedApi({ secret: world.service.account.secret, allowOrigin: site.url })
      const { approovHost, approovSiteKey, keys, simulators } = world.settings
      const text = await readFile(README, 'utf8')
      for (const name of SNIPPETS) {
        const code = new RegExp(`^\`\`\`(?:js|ts)\\n(// ${name}\\n.*?)^\`\`\`$`, 'ms').exec(text)?.[1]
        assert.ok(code, name)
        const put = code
          .replaceAll('web-1.approovr.io', approovHost)
          .replaceAll('https://api.example.com', api.url)
          .replaceAll('your-Approov-site-key', approovSiteKey)
          .replaceAll('your-reCAPTCHA-site-key', keys.recaptcha.recaptchaSiteKey)
        await writeFile(join(fixture.path, 'src', name), put)
      }
      const page = join(fixture.path, 'index.html')
      const script = `<script src="${simulators}/recaptcha/api.js?render=${keys.recaptcha.recaptchaSiteKey}"></script>`
      await writeFile(page, (await readFile(page, 'utf8')).replace('<!-- SCRIPT -->', script))
      await fixture.build()
    },
    { timeout: 10 * HANG },
  )
  after(async () => {
    await api?.stop()
    await site?.stop()
    await fixture?.remove()
    await world?.stop()
  })

  for (const framework of ['react', 'vue', 'svelte', 'axios', 'angular']) {
    test(`${framework}, one check per page load, and the API accepts token and proof`, async () => {
      const begin = await logComplete(world.service)
      await world.webdriver.get(`${site.url}/`)
      await world.webdriver.wait(() => world.webdriver.executeScript('return Boolean(globalThis.frameworks)'), HANG)
      const body = await world.run(
        (framework, url) => globalThis.frameworks[framework](url),
        framework,
        `${api.url}/shapes`,
      )
      assert.equal(body.proof.accepted, true, JSON.stringify(body))
      assert.equal(Boolean(body.proof.msgs), framework === 'angular')
      await logComplete(world.service)
      const checks = world.service.log.slice(begin).filter((entry) => entry.path === '/attest' && entry.checks?.length)
      assert.equal(checks.length, 1)
    })
  }
})
