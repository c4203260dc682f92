// Every JavaScript and HTML snippet of the READMEs, run in a browser against the development service: keys and hosts are put in,
// nothing else is changed. The vendors' scripts, also those that the package loads, are the simulators'.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { serveSite, startProtectedApi } from '../../../www-demo/stack.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { startWorld } from '../harness/world.mjs'

/** The pages of docs/CHECKS.md, each with its content security policy. */
const CHECK_PAGES = ['altcha', 'hcaptcha', 'recaptcha', 'recaptcha-enterprise', 'turnstile', 'friendly', 'fingerprint']

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/

const READMES = {
  package: new URL('../../../pkg-template/README.md', import.meta.url),
  project: new URL('../../../README.md', import.meta.url),
  checks: new URL('../../../docs/CHECKS.md', import.meta.url),
}

/** The snippets of a README: language, text, and the file name in the first line's comment. */
async function snippets(readme) {
  const text = await readFile(readme, 'utf8')
  return [...text.matchAll(/^```(js|html)\n(.*?)^```$/gms)].map(([, language, code]) => ({
    language,
    code,
    name: /^(?:\/\/|<!--) ([\w.-]+\.(?:js|html))/.exec(code)?.[1],
  }))
}

/** What to do with each snippet of the package's README, once its module is imported, and what has to come of it. */
const MODULES = {
  'api.js': {
    use: async ({ module, apiUrl }) => {
      const verdict = async (response) => [response.status, (await response.json()).proof?.accepted]
      const both = await Promise.all([module.apiFetch(apiUrl), module.apiFetch(apiUrl)])
      const json = { 'Content-Type': 'application/json' }
      const bytes = new TextEncoder().encode('{"shape":"square"}')
      const responses = [
        ...both,
        await module.apiFetch(new URL(apiUrl)),
        await module.apiFetch(new Request(apiUrl, { method: 'POST', headers: json, body: '{"shape":"circle"}' })),
        await module.apiFetch(apiUrl, { method: 'post', headers: new Headers(json), body: bytes }),
        await module.apiFetch(apiUrl, { method: 'POST', headers: Object.entries(json), body: new Blob([bytes]) }),
      ]
      return Promise.all(responses.map(verdict))
    },
    check: (verdicts) => assert.deepEqual(verdicts, Array(6).fill([200, true])),
  },
  'order.js': {
    use: async ({ written }) =>
      written.map(([status, body]) => [status, body.proof.accepted, Boolean(body.proof.msgs)]),
    check: (outcome) =>
      assert.deepEqual(outcome, [
        [200, true, false],
        [200, true, true],
      ]),
  },
  'signed.js': {
    use: async ({ module, api, apiUrl }) => {
      await api.apiFetch(apiUrl)
      const response = await module.signedCall(apiUrl, 'this text is signed')
      return [response.status, Boolean((await response.json()).proof.msgs)]
    },
    check: (outcome) => assert.deepEqual(outcome, [200, true]),
  },
  'seven.js': {
    use: async ({ written }) => written.map(([body]) => body.proof.accepted),
    check: (outcome) => assert.deepEqual(outcome, [true]),
  },
  'anyway.js': {
    use: async ({ module, apiUrl }) => {
      const { status } = await module.fetchAnyway(apiUrl)
      const { fetch } = globalThis
      globalThis.fetch = () => Promise.reject(new TypeError('offline'))
      const offline = await module.fetchAnyway(apiUrl).catch((error) => error.message)
      globalThis.fetch = fetch
      return [status, offline]
    },
    check: (outcome) => assert.deepEqual(outcome, [200, 'offline']),
  },
  'loaders.js': {
    use: async ({ module }) => typeof module.renew,
    check: (type) => assert.equal(type, 'function'),
  },
  'events.js': {
    use: async ({ module, api, apiUrl, written }) => {
      await api.apiFetch(apiUrl)
      await module.logOut()
      await new Promise((resolve) => setTimeout(resolve))
      return written
    },
    check: (outcome) => assert.deepEqual(outcome, [['the session is over:', 'ended']]),
  },
  'account.js': {
    use: async ({ module, api, apiUrl }) => {
      await api.apiFetch(apiUrl)
      const seen = []
      const { fetch } = globalThis
      globalThis.fetch = (request) => {
        seen.push(request.headers.get('approov-token'))
        return fetch(apiUrl)
      }
      await module.accountFetch(apiUrl, { headers: { authorization: 'Bearer secret' } })
      globalThis.fetch = fetch
      return JSON.parse(atob(seen[0].split('.')[1].replaceAll('-', '+').replaceAll('_', '/'))).pay
    },
    // printf 'Bearer secret' | openssl dgst -sha256 -binary | base64
    check: (pay) => assert.equal(pay, BEARER_SECRET_HASH),
  },
  'errors.js': {
    use: async ({ module, api, apiUrl }) => {
      const fine = await module.problemWith(apiUrl)
      const { fetch } = globalThis
      globalThis.fetch = () => Promise.reject(new TypeError('offline'))
      const offline = await module.problemWith(apiUrl)
      globalThis.fetch = fetch
      return [fine ?? null, offline, (await module.problemWith(apiUrl)) ?? null]
    },
    check: (outcome) => assert.deepEqual(outcome, [null, 'The connection seems to be down. Please try again.', null]),
  },
  'renew.js': {
    use: async ({ module, Approov, api, apiUrl }) => {
      await api.apiFetch(apiUrl)
      const proofKey = async () =>
        JSON.parse(
          atob(
            (await Approov.getDPoPToken('GET', 'https://a.example/'))
              .split('.')[0]
              .replaceAll('-', '+')
              .replaceAll('_', '/'),
          ),
        ).jwk.x
      const first = await proofKey()
      await module.renewIfEnding()
      const kept = await proofKey()
      await module.renewIfEnding(1e12)
      return [first === kept, kept === (await proofKey())]
    },
    check: (outcome) => assert.deepEqual(outcome, [true, false]),
  },
  'cdn.js': {
    use: async ({ Approov }) => (await Approov.getDPoPToken('GET', 'https://api.example.com/')).split('.').length,
    check: (parts) => assert.equal(parts, 3),
  },
}

/** Snippets that want a framework, or a service worker: `frameworks.test.mjs` and `browser/persistence.test.mjs` run them. */
const FRAMEWORKS = ['react.js', 'vue.js', 'svelte.js', 'axios.js', 'sw.js']

/** What the page of each HTML snippet shows in the end. */
const PAGES = {
  'recaptcha.html': TOKEN,
  'hcaptcha.html': TOKEN,
  'fingerprint.html': TOKEN,
  'altcha.html': TOKEN,
  'integrity.html':
    /^initializeSession fetchToken getDPoPToken messageSignature getExpiries createFetch on endSession$/,
}

/** The vendors' scripts, and what takes their places. */
const scripts = (simulators) => [
  ['https://www.google.com/recaptcha/', `${simulators}/recaptcha/`],
  ['https://js.hcaptcha.com/', `${simulators}/hcaptcha/`],
  ['https://challenges.cloudflare.com/', `${simulators}/`],
  ['https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js', `${simulators}/friendly/site.js`],
  ['https://fpjscdn.net/', `${simulators}/fingerprint/`],
]

const BEARER_SECRET_HASH = 'v/3iBBM0e3oA4TY94/l8pp5BncCupV9KSnUBj6s6Do4='

test('every snippet of the READMEs is run here', async () => {
  const names = (await snippets(READMES.package)).map(({ name }) => name)
  assert.deepEqual(names.sort(), [...Object.keys(MODULES), ...Object.keys(PAGES), ...FRAMEWORKS].sort())
  assert.equal((await snippets(READMES.project)).length, 1)
  const pages = (await snippets(READMES.checks)).map(({ name }) => name)
  assert.deepEqual(
    pages,
    CHECK_PAGES.map((check) => `${check}.html`),
  )
})

for (const engine of chosenEngines()) {
  describe(`the snippets of the READMEs in ${ENGINES[engine].title}`, () => {
    let world
    let site
    let api
    let directory
    let put
    before(async () => {
      world = await startWorld(engine)
      directory = await mkdtemp(join(tmpdir(), 'approov-snippets-'))
      const hashes = JSON.parse(await readFile(join(world.packagePath, 'integrity.json'), 'utf8'))
      const { keys, simulators, approovHost, approovSiteKey } = world.settings
      site = await serveSite({
        mounts: {
          '/': directory,
          '/package': world.packagePath,
          '/approov.js': join(world.packagePath, 'approov.js'),
          '/assets/approov_bg.wasm': join(world.packagePath, 'approov_bg.wasm'),
        },
        routes: { '/page': () => page },
      })
      api = await startProtectedApi({ secret: world.service.account.secret, allowOrigin: site.url })
      put = (text, name) =>
        [
          // Sources of a policy: the simulators' origin, for what the vendors' scripts load and call.
          ['https://hcaptcha.com https://*.hcaptcha.com', approovHost],
          ['https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/', approovHost],
          ['https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/', approovHost],
          ['https://challenges.cloudflare.com;', `${approovHost};`],
          ['https://cdn.jsdelivr.net;', `${approovHost};`],
          ['https://fpjscdn.net;', `${approovHost};`],
          ['./approov.js', name?.startsWith('check-') ? './simulated.js' : './approov.js'],
          ['https://*.frcapi.com', approovHost],
          ['https://*.fpjs.io', approovHost],
          ['https://web-1.approovr.io', approovHost],
          ...scripts(simulators),
          ['https://api.example.com', api.url],
          ['web-1.approovr.io', approovHost],
          ['your-Approov-site-key', approovSiteKey],
          ['your-reCAPTCHA-site-key', keys.recaptcha.recaptchaSiteKey],
          ['your-hCaptcha-site-key', keys.hcaptcha.hcaptchaSiteKey],
          ['your-Enterprise-key', keys.recaptchaEnterprise.recaptchaSiteKey],
          ['your-Turnstile-site-key', keys.turnstile.turnstileSiteKey],
          ['your-Friendly-Captcha-site-key', keys.friendly.friendlyCaptchaSiteKey],
          ['your-ALTCHA-site-key', keys.altcha.altchaSiteKey],
          ['your-Fingerprint-public-API-key', keys.fingerprint.fingerprintPublicAPIKey],
          ['sha384-as-in-integrity.json', hashes['approov.js']],
        ].reduce((text, [placeholder, value]) => text.replaceAll(placeholder, value), text)
      const page = put(`<!doctype html>
        <meta charset="utf-8">
        <title>snippets</title>
        <link rel="icon" href="data:,">
        <script type="importmap">{ "imports": { "approov-web-sdk": "/package/index.js", "approov-web-sdk/checks": "/simulated-checks.js" } }</script>
        <script src="https://www.google.com/recaptcha/api.js?render=your-reCAPTCHA-site-key"></script>`)
      for (const { name, code } of await snippets(READMES.package)) {
        if (name) await writeFile(join(directory, name), put(code))
      }
      for (const { name, code } of await snippets(READMES.checks)) {
        await writeFile(join(directory, `check-${name}`), put(code, `check-${name}`))
      }
      // The loaders of checks have the vendors' addresses in them.
      const simulate = async (file) => {
        const code = await readFile(join(world.packagePath, file), 'utf8')
        return scripts(simulators).reduce((code, [vendor, simulator]) => code.replaceAll(vendor, simulator), code)
      }
      await writeFile(join(directory, 'simulated.js'), await simulate('approov.js'))
      const checks = await simulate('checks.js')
      await writeFile(join(directory, 'simulated-checks.js'), checks.replace('./errors.js', '/package/errors.js'))
    })
    after(async () => {
      await api?.stop()
      await site?.stop()
      await world?.stop()
      if (directory) await rm(directory, { recursive: true, force: true })
    })

    for (const [name, { use, check }] of Object.entries(MODULES)) {
      test(`${name} does what it says`, async () => {
        await world.webdriver.get(`${site.url}/page`)
        const outcome = await world.run(
          async (name, use, apiUrl) => {
            const written = []
            console.log = (...args) => written.push(args)
            const { Approov } = await import('/package/index.js')
            const module = await import(`/${name}`)
            const api = await import(/** @type {any} */ ('/api.js'))
            return window.eval(`(${use})`)({ module, api, Approov, written, apiUrl })
          },
          name,
          String(use),
          `${api.url}/shapes`,
        )
        check(outcome)
      })
    }

    for (const [name, shown] of Object.entries(PAGES)) {
      test(`${name} shows what it is for`, async () => {
        await world.webdriver.get(`${site.url}/${name}`)
        const value = () => world.webdriver.executeScript('return document.querySelector("output").value')
        await world.webdriver.wait(async () => Boolean(await value()), HANG)
        assert.match(await value(), shown)
      })
    }

    for (const check of CHECK_PAGES) {
      test(`the page for ${check} calls the API under its own policy`, async () => {
        await world.webdriver.get(`${site.url}/check-${check}.html`)
        const value = () => world.webdriver.executeScript('return document.querySelector("output").value')
        await world.webdriver.wait(async () => Boolean(await value()), HANG)
        assert.equal(await value(), '200')
      })
    }

    test('a copied file that was changed is not run where its integrity is required', async () => {
      const html = await readFile(join(directory, 'integrity.html'), 'utf8')
      await writeFile(join(directory, 'changed.html'), html.replaceAll('./approov.js', './changed.js'))
      await writeFile(
        join(directory, 'changed.js'),
        `${await readFile(join(world.packagePath, 'approov.js'), 'utf8')}\n// changed`,
      )
      await world.webdriver.get(`${site.url}/changed.html`)
      await world.webdriver.wait(() => world.webdriver.executeScript('return document.readyState === "complete"'), HANG)
      assert.equal(await world.webdriver.executeScript('return document.querySelector("output").value'), '')
    })

    test("the project README's first lines call the API with a token and a proof", async () => {
      const [{ code }] = await snippets(READMES.project)
      await writeFile(join(directory, 'first-lines.js'), `${put(code)}\nexport { response }\n`)
      await world.webdriver.get(`${site.url}/page`)
      const outcome = await world.run(async () => {
        const { response } = await import(/** @type {any} */ ('/first-lines.js'))
        return [response.status, (await response.json()).proof.accepted]
      })
      assert.deepEqual(outcome, [200, true])
    })
  })
}
