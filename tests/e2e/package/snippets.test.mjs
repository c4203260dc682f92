// Every JavaScript and HTML snippet of the READMEs, run in a browser against the development service: keys and hosts are put in,
// nothing else is changed. The vendors' scripts, also those that the package loads, are the simulators'.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
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
      const both = await Promise.all([module.callApi(apiUrl), module.callApi(apiUrl)])
      const json = { 'Content-Type': 'application/json' }
      const bytes = new TextEncoder().encode('{"shape":"square"}')
      const responses = [
        ...both,
        await module.callApi(new URL(apiUrl)),
        await module.callApi(new Request(apiUrl, { method: 'POST', headers: json, body: '{"shape":"circle"}' })),
        await module.callApi(apiUrl, { method: 'post', headers: new Headers(json), body: bytes }),
        await module.callApi(apiUrl, { method: 'POST', headers: Object.entries(json), body: new Blob([bytes]) }),
      ]
      return Promise.all(responses.map(verdict))
    },
    check: (verdicts) => assert.deepEqual(verdicts, Array(6).fill([200, true])),
  },
  'fingerprint.js': {
    use: async ({ module }) => {
      const first = await module.identify().catch((error) => error.name)
      return [first, (await module.identify()).visitor_id.length > 0, (await module.identify()).event_id.length > 0]
    },
    // Its server fails once.
    check: (outcome) => assert.deepEqual(outcome, ['TypeError', true, true]),
  },
  'loaders.js': {
    use: async ({ module, apiUrl }) => (await module.apiFetch(apiUrl)).status,
    check: (status) => assert.equal(status, 200),
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
    use: async ({ module, apiUrl }) => {
      const response = await module.signedCall(apiUrl, 'this text is signed')
      return [response.status, Boolean((await response.json()).proof.msgs)]
    },
    check: (outcome) => assert.deepEqual(outcome, [200, true]),
  },
  'account.js': {
    use: async ({ module }) =>
      JSON.parse(
        atob((await module.boundToken('Bearer secret')).split('.')[1].replaceAll('-', '+').replaceAll('_', '/')),
      ).pay,
    // printf 'Bearer secret' | openssl dgst -sha256 -binary | base64
    check: (pay) => assert.equal(pay, BEARER_SECRET_HASH),
  },
  'errors.js': {
    use: async ({ module, api, apiUrl }) => {
      await api.renewSession()
      const fine = await module.problemWith(apiUrl)
      const { fetch } = globalThis
      globalThis.fetch = () => Promise.reject(new TypeError('offline'))
      // Its renewal of the session has to reach the service.
      await api.renewSession().catch(() => {})
      const offline = await module.problemWith(apiUrl)
      globalThis.fetch = fetch
      return [fine ?? null, offline, (await module.problemWith(apiUrl)) ?? null]
    },
    check: (outcome) => assert.deepEqual(outcome, [null, 'The connection seems to be down. Please try again.', null]),
  },
  'renew.js': {
    use: async ({ module, Approov, api }) => {
      await api.approovToken()
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

/** What the page of each HTML snippet shows in the end. */
const PAGES = {
  'recaptcha.html': TOKEN,
  'hcaptcha.html': TOKEN,
  'fingerprint.html': TOKEN,
  'altcha.html': TOKEN,
  'integrity.html': /^initializeSession fetchToken getDPoPToken messageSignature getExpiries createFetch/,
}

/** The vendors' scripts, and what takes their places. */
const scripts = (simulators) => [
  ['https://www.google.com/recaptcha/', `${simulators}/recaptcha/`],
  ['https://js.hcaptcha.com/', `${simulators}/hcaptcha/`],
  ['https://challenges.cloudflare.com/', `${simulators}/`],
  ['https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js', `${simulators}/friendly/site.js`],
  ['https://fpjscdn.net/', `${simulators}/fingerprint/`],
]

/** A server of Fingerprint's agent that fails once. */
async function startAgent(source) {
  let isThere = false
  const server = createServer((request, response) => {
    const headers = {
      'Access-Control-Allow-Origin': '*',
      'Content-Type': 'text/javascript',
      'Cache-Control': 'no-store',
    }
    response.writeHead(isThere ? 200 : 503, headers).end(`export * from ${JSON.stringify(source)}`)
    isThere = true
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined))
  })
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://127.0.0.1:${port}/agent.js`,
    stop: () =>
      new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      }),
  }
}

const BEARER_SECRET_HASH = 'v/3iBBM0e3oA4TY94/l8pp5BncCupV9KSnUBj6s6Do4='

test('every snippet of the READMEs is run here', async () => {
  const names = (await snippets(READMES.package)).map(({ name }) => name)
  assert.deepEqual(names.sort(), [...Object.keys(MODULES), ...Object.keys(PAGES)].sort())
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
    let agent
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
      agent = await startAgent(`${simulators}/fingerprint/v4/${keys.fingerprint.fingerprintPublicAPIKey}`)
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
          ['approov-web-sdk/checks', './simulated-checks.js'],
          ['https://*.frcapi.com', approovHost],
          ['https://*.fpjs.io', approovHost],
          ['https://web-1.approovr.io', approovHost],
          ...(name === 'fingerprint.js' ? [['https://fpjscdn.net/v4/your-Fingerprint-public-API-key', agent.url]] : []),
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
        <script type="importmap">{ "imports": { "approov-web-sdk": "/package/index.js" } }</script>
        <script src="https://www.google.com/recaptcha/api.js?render=your-reCAPTCHA-site-key"></script>`)
      for (const { name, code } of await snippets(READMES.package)) {
        if (name) await writeFile(join(directory, name), put(code, name))
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
      await agent?.stop()
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

    test('a check that never ends fails its own calls, and none that come later', async () => {
      await world.webdriver.get(`${site.url}/page`)
      const outcome = await world.run(async (apiUrl) => {
        const { callApi } = await import(/** @type {any} */ ('/api.js'))
        const { ready } = grecaptcha
        const { setTimeout } = globalThis
        grecaptcha.ready = () => {}
        // Half a minute is over at once.
        const soon = (work, delay, ...rest) => setTimeout(work, delay === 30_000 ? 0 : delay, ...rest)
        Object.assign(globalThis, { setTimeout: soon })
        const messages = await Promise.all([0, 1].map(() => callApi(apiUrl).catch((error) => error.message)))
        Object.assign(globalThis, { setTimeout })
        grecaptcha.ready = ready
        return [...messages, (await callApi(apiUrl)).status]
      }, `${api.url}/shapes`)
      const late = 'the check did not end in time'
      assert.deepEqual(outcome, [late, late, 200])
    })

    test('a call between whose token and proof another begins a session gets through', async () => {
      await world.webdriver.get(`${site.url}/page`)
      const status = await world.run(async (apiUrl) => {
        const { callApi, approovToken, renewSession } = await import(/** @type {any} */ ('/api.js'))
        await approovToken()
        const call = callApi(apiUrl)
        await renewSession()
        return (await call).status
      }, `${api.url}/shapes`)
      assert.equal(status, 200)
    })

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
      await writeFile(join(directory, 'first-lines.js'), `${put(code)}\nexport { callApi }\n`)
      await world.webdriver.get(`${site.url}/page`)
      const outcome = await world.run(async (apiUrl) => {
        const { callApi } = await import(/** @type {any} */ ('/first-lines.js'))
        const response = await callApi(apiUrl)
        return [response.status, (await response.json()).proof.accepted]
      }, `${api.url}/shapes`)
      assert.deepEqual(outcome, [200, true])
    })
  })
}
