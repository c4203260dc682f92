// Sessions that outlive their page (`persistence: 'browser'`): reloads, further tabs, other realms, and storage that fails.
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'

import { createApi } from '../harness/api.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { createStub } from '../harness/stub.mjs'
import { startSite } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`persistence in ${ENGINES[engine].title}`, () => {
    const stub = createStub()
    const api = createApi()
    let site
    let browser
    let directory
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'approov-worker-'))
      site = await startSite({ mounts: { '/sw.js': join(directory, 'sw.js') } })
      await stub.start()
      await api.start()
      browser = await openBrowser(engine)
    })
    after(async () => {
      await browser?.close()
      for (const one of [stub, api]) if (one.url) await one.stop()
      await site?.stop()
      if (directory) await rm(directory, { recursive: true, force: true })
    })

    const run = (work, ...args) => browser.run(work, ...args)

    /** What every page of the app does. `prepare` runs before the SDK is imported. */
    async function page(more = {}, prepare = () => {}) {
      await browser.webdriver.get(`${site.url}/blank.html`)
      await run(prepare)
      await run(
        async (options, api) => {
          Object.assign(globalThis, await import('/approov.js'), await import('/flow.js'), { options, api })
          globalThis.checks = 0
          globalThis.heard = []
          globalThis.logged = []
          for (const type of /** @type {const} */ (['session', 'sessionend'])) {
            Approov.on(type, (event) => heard.push(event.type === 'sessionend' ? event.code : event.type))
          }
          Approov.on('log', ({ message }) => globalThis.logged.push(message))
          globalThis.apiFetch = Approov.createFetch({
            origins: [api],
            session: options,
            renew: () => ({ recaptchaToken: `r${(checks += 1)}` }),
          })
          globalThis.call = async () => (await apiFetch(api)).status
          globalThis.outcome = (promise) =>
            promise.then(
              (value) => value,
              (error) => `${error.name} ${error.code}`,
            )
        },
        { ...stub.options(), persistence: 'browser', ...more },
        api.url,
      )
    }
    /** One call of the app, and how many checks this page has run. */
    const call = () => run(async () => [await globalThis.call(), checks])
    /** The public key of the latest proof that the API got. */
    const key = () => JSON.parse(Buffer.from(api.seen().at(-1).headers.dpop.split('.')[0], 'base64url')).jwk.x
    /** Everything in the browser's database. */
    const stored = () =>
      run(async () => {
        const names = (await indexedDB.databases()).map(({ name }) => name)
        if (!names.includes('approov-web-sdk')) return []
        const database = await new Promise((resolve, reject) => {
          const opening = indexedDB.open('approov-web-sdk')
          opening.onsuccess = () => resolve(opening.result)
          opening.onerror = () => reject(opening.error)
        })
        const all = await new Promise((resolve) => {
          const request = database.transaction('sessions').objectStore('sessions').getAll()
          request.onsuccess = () => resolve(request.result)
        })
        database.close()
        return all.map(({ key, ...rest }) => ({ ...rest, extractable: key.extractable, usages: [...key.usages] }))
      })
    const written = () =>
      run(async () => {
        while (!(await indexedDB.databases()).some(({ name }) => name === 'approov-web-sdk')) {
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      })

    beforeEach(async () => {
      stub.reply()
      api.reply()
      await page()
      await run(() => Approov.endSession())
      await page()
    })

    test('five reloads and a second tab run one check in all, with one key', async () => {
      assert.deepEqual(await call(), [200, 1])
      await written()
      const first = key()
      for (let reload = 0; reload < 5; reload++) {
        await page()
        assert.deepEqual(await call(), [200, 0])
        assert.equal(key(), first)
      }
      const main = await browser.webdriver.getWindowHandle()
      await browser.webdriver.switchTo().newWindow('tab')
      await page()
      assert.deepEqual(await call(), [200, 0])
      assert.equal(key(), first)
      await browser.webdriver.close()
      await browser.webdriver.switchTo().window(main)
      assert.equal(stub.forms().filter((form) => form.includes('recaptcha-token')).length, 1)
    })

    test('what is kept: a key that cannot be exported, no token, no result', async () => {
      await call()
      await written()
      const token = api.seen()[0].headers['approov-token']
      const [record, ...more] = await stored()
      assert.deepEqual(more, [])
      assert.equal(record.extractable, false)
      assert.deepEqual(record.usages, ['sign'])
      assert.deepEqual(Object.keys(record).sort(), [
        'account',
        'expiries',
        'expiry',
        'extractable',
        'host',
        'offset',
        'refreshToken',
        'usages',
        'x',
        'y',
      ])
      assert.ok(!JSON.stringify(record).includes(token))
    })

    test('endSession leaves nothing, also in a page that has not begun one yet, and ends it in other tabs', async () => {
      await call()
      await written()
      const main = await browser.webdriver.getWindowHandle()
      await browser.webdriver.switchTo().newWindow('tab')
      await page()
      await run(() => Approov.endSession())
      assert.deepEqual(await stored(), [])
      await browser.webdriver.close()
      await browser.webdriver.switchTo().window(main)
      await run(async () => {
        while (heard.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
      })
      assert.deepEqual(await run(() => heard), ['session', 'ended'])
      assert.deepEqual(await call(), [200, 2])
      await run(() => Approov.endSession())
      assert.deepEqual(await stored(), [])
    })

    test('a new session in another tab is taken over at the next call', async () => {
      await call()
      await written()
      const main = await browser.webdriver.getWindowHandle()
      await browser.webdriver.switchTo().newWindow('tab')
      await page()
      const [{ x: old }] = await stored()
      await run(() => apiFetch.renew())
      await call()
      const second = key()
      while ((await stored())[0].x === old);
      await browser.webdriver.close()
      await browser.webdriver.switchTo().window(main)
      await run(async () => {
        while (!heard.includes('replaced')) {
          await globalThis.call()
          await new Promise((resolve) => setTimeout(resolve, 5))
        }
      })
      await call()
      assert.equal(key(), second)
      assert.deepEqual(await run(() => [heard, checks]), [['session', 'replaced', 'session'], 1])
    })

    test('initializeSession takes a kept session over once, and makes a new one after that', async () => {
      await call()
      await written()
      await page()
      const outcomes = await run(async () => {
        await Approov.initializeSession(options)
        const first = outcome(Approov.fetchToken('api'))
        const token = await first
        await Approov.initializeSession(options)
        return [/^token\./.test(token), await outcome(Approov.fetchToken('api'))]
      })
      assert.deepEqual(outcomes, [true, 'ApproovSessionError results-required'])
    })

    test('a page that keeps nothing neither reads nor writes', async () => {
      await call()
      await written()
      const [before] = await stored()
      await page({ persistence: 'memory' })
      assert.deepEqual(await call(), [200, 1])
      assert.deepEqual(await stored(), [before])
    })

    test('another account does not get it', async () => {
      await call()
      await written()
      await page({ recaptchaSiteKey: 'another' })
      assert.deepEqual(await call(), [200, 1])
    })

    test('a key that somebody has put in its place and could export is not used', async () => {
      await call()
      await written()
      await run(async () => {
        const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign'])
        const database = await new Promise((resolve) => {
          const opening = indexedDB.open('approov-web-sdk')
          opening.onsuccess = () => resolve(opening.result)
        })
        const store = database.transaction('sessions', 'readwrite').objectStore('sessions')
        await new Promise((resolve) => {
          const reading = store.get(options.approovSiteKey)
          reading.onsuccess = () => {
            store.put({ ...reading.result, key: pair.privateKey }, options.approovSiteKey)
            store.transaction.oncomplete = resolve
          }
        })
        database.close()
      })
      await page()
      assert.deepEqual(await call(), [200, 1])
    })

    test('a refresh token that is refused: one check, in the same call', async () => {
      await call()
      await written()
      await page()
      stub.reply((response, form) => {
        const isOld = form.includes('refresh-token')
        response.writeHead(isOld ? 401 : 200, {
          'Content-Type': 'application/json',
          'Access-Control-Allow-Origin': '*',
          'Access-Control-Expose-Headers': 'DPoP-Nonce',
          'DPoP-Nonce': 'n',
        })
        response.end(JSON.stringify(isOld ? { 'aprv-invalid-refresh-token': '' } : stub.grant(form)))
      })
      assert.deepEqual(await call(), [200, 1])
    })

    test("the README's service worker signs images with the kept session, after a restart too, and leaves them alone without one", async (context) => {
      const readme = await readFile(new URL('../../../pkg-template/README.md', import.meta.url), 'utf8')
      const code = /^```js\n(\/\/ sw\.js\n.*?)^```$/ms.exec(readme)[1]
      const put = code
        .replace("'approov-web-sdk'", "'/package/index.js'")
        .replace('https://api.example.com', api.url)
        .replace('web-1.approovr.io', stub.url)
        .replace('your-Approov-site-key', stub.options().approovSiteKey)
        .replace('your-reCAPTCHA-site-key', stub.options().recaptchaSiteKey)
      await writeFile(join(directory, 'sw.js'), put)
      assert.deepEqual(await call(), [200, 1])
      await written()
      const first = key()
      const register = () =>
        run(async () => {
          try {
            await navigator.serviceWorker.register('/sw.js', { type: 'module' })
          } catch (error) {
            return String(error)
          }
          await navigator.serviceWorker.ready
        })
      const refused = await register()
      if (refused) {
        context.skip(`this engine has no module service workers: ${refused}`)
        return
      }
      /** What the API sees of an image of a page that the worker controls. */
      const image = async (name) => {
        await page()
        api.reply()
        await run(
          (src) =>
            new Promise((resolve) => {
              const image = new Image()
              image.onload = image.onerror = () => resolve(undefined)
              image.src = src
            }),
          `${api.url}/${name}`,
        )
        const [{ headers }] = api.seen()
        return { headers, checks: await run(() => checks) }
      }
      const unregister = () =>
        run(async () => {
          for (const registration of await navigator.serviceWorker.getRegistrations()) await registration.unregister()
        })
      try {
        for (const start of ['first', 'second']) {
          const { headers, checks } = await image(start)
          assert.match(headers['approov-token'] ?? '', /^token\./, start)
          assert.deepEqual([key(), checks], [first, 0])
          await unregister()
          await page()
          assert.equal(await register(), null)
        }
        await run(() => Approov.endSession())
        const { headers } = await image('unsigned')
        assert.equal('approov-token' in headers || 'dpop' in headers, false)
      } finally {
        await unregister()
      }
    })

    test('initializeSession that asks for it later keeps the session, too', async () => {
      await run(async () => {
        await Approov.initializeSession({ ...options, persistence: 'memory' })
        await Approov.fetchToken('api', { recaptchaToken: 'one' })
        await Approov.initializeSession(options)
        await Approov.fetchToken('api', { recaptchaToken: 'two' })
      })
      await written()
      await page()
      assert.deepEqual(await call(), [200, 0])
    })

    test('each site key has its own record, whichever the page began with', async () => {
      await run(async () => {
        await Approov.initializeSession({ ...options, approovSiteKey: 'other' })
        await Approov.fetchToken('api', { recaptchaToken: 'one' })
        await Approov.initializeSession(options)
        await Approov.fetchToken('api', { recaptchaToken: 'two' })
      })
      await written()
      await page()
      assert.deepEqual(await call(), [200, 0])
      await page({ approovSiteKey: 'other' })
      assert.deepEqual(await call(), [200, 0])
      await run(() => Approov.endSession())
    })

    test('endSession while a page is in the back/forward cache ends the session there, too', async () => {
      await call()
      await written()
      await run(() => void dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })))
      const main = await browser.webdriver.getWindowHandle()
      await browser.webdriver.switchTo().newWindow('tab')
      await page()
      await run(() => Approov.endSession())
      await browser.webdriver.close()
      await browser.webdriver.switchTo().window(main)
      await run(async () => {
        dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))
        const patience = performance.now() + 5_000
        while (heard.length < 2 && performance.now() < patience) await new Promise((resolve) => setTimeout(resolve, 5))
      })
      assert.deepEqual(await run(() => heard), ['session', 'ended'])
      assert.deepEqual(await call(), [200, 2])
    })

    test('a session that begins while another is being ended is kept', async () => {
      await call()
      await written()
      await run(async () => {
        const ending = Approov.endSession()
        await globalThis.call()
        await ending
      })
      await written()
      await page()
      assert.deepEqual(await call(), [200, 0])
    })

    /** Ways in which a browser keeps nothing. @type {Record<string, () => void>} */
    const FAULTS = {
      'no indexedDB': () =>
        void Object.defineProperty(globalThis, 'indexedDB', { value: undefined, configurable: true }),
      'indexedDB that throws': () =>
        void Object.defineProperty(globalThis, 'indexedDB', {
          configurable: true,
          value: {
            open() {
              throw new DOMException('no', 'SecurityError')
            },
            deleteDatabase() {
              throw new DOMException('no', 'SecurityError')
            },
          },
        }),
      'a quota that is used up': () =>
        void (IDBObjectStore.prototype.put = () => {
          throw new DOMException('full', 'QuotaExceededError')
        }),
      'keys that cannot be cloned': () =>
        void (IDBObjectStore.prototype.put = () => {
          throw new DOMException('no', 'DataCloneError')
        }),
      'indexedDB that never responds': () =>
        void Object.defineProperty(globalThis, 'indexedDB', {
          configurable: true,
          value: { open: () => ({}), deleteDatabase: () => ({}) },
        }),
      'a BroadcastChannel that throws': () =>
        void (globalThis.BroadcastChannel = /** @type {any} */ (
          function () {
            throw new DOMException('no', 'SecurityError')
          }
        )),
      'no BroadcastChannel': () =>
        void Object.defineProperty(globalThis, 'BroadcastChannel', { value: undefined, configurable: true }),
    }
    for (const [name, fault] of Object.entries(FAULTS)) {
      test(`${name}: as without persistence, and said in the log`, async () => {
        await page({}, fault)
        await run(() => {
          globalThis.unhandled = []
          addEventListener('unhandledrejection', ({ reason }) => globalThis.unhandled.push(String(reason)))
        })
        assert.deepEqual(await call(), [200, 1])
        assert.deepEqual(await call(), [200, 1])
        assert.equal(await run(() => outcome(Approov.endSession())), null)
        assert.deepEqual(await run(() => globalThis.unhandled), [])
        const logged = await run(
          () => globalThis.logged.filter((line) => / failed, the session goes on/.test(line)).length,
        )
        assert.equal(logged > 0, name !== 'no BroadcastChannel')
      })
    }
  })
}
