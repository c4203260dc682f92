// The demo page: every check service, every outcome, by mouse and by keyboard, on a phone's width.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { By, Key, until } from 'selenium-webdriver'

import { startDemo } from '../../../www-demo/demo.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { HANG } from '../harness/wait.mjs'
import { logComplete } from '../harness/world.mjs'

for (const engine of chosenEngines()) {
  describe(`the demo page in ${ENGINES[engine].title}`, () => {
    let demo, browser
    before(async () => {
      demo = await startDemo()
      browser = await openBrowser(engine)
    })
    after(async () => {
      await browser?.close()
      await demo?.stop()
    })

    const open = async (query = '') => {
      await browser.webdriver.get(`${demo.site.url}/${query}`)
      // The page fills its fields in when its script has run: from then on its buttons work.
      await browser.webdriver.wait(until.elementLocated(By.css('input[name=approovHost][placeholder^=http]')), HANG)
    }
    const ended = () =>
      browser.webdriver.wait(
        until.elementLocated(By.css('#outcome[data-state=done], #outcome[data-state=failed]')),
        HANG,
      )
    const states = () =>
      browser.run(() =>
        Object.fromEntries(
          Array.from(document.querySelectorAll('[data-step]'), (item) => [item.dataset.step, item.dataset.state]),
        ),
      )
    const shown = (step) => browser.run((step) => document.querySelector(`[data-step=${step}] pre`).textContent, step)
    const runWith = async (check, outcome) => {
      await open(`?check=${check}&outcome=${outcome}`)
      await browser.webdriver.findElement(By.id('run')).click()
      await ended()
    }

    const allDone = { session: 'done', check: 'done', token: 'done', proof: 'done', api: 'done', expiries: 'done' }

    for (const check of ['hcaptcha', 'recaptcha', 'fingerprint', 'turnstile', 'friendly']) {
      test(`shows every step of a passed ${check} check`, async () => {
        await runWith(check, 'pass')
        assert.deepEqual(await states(), allDone)
        const { claims } = JSON.parse(await shown('token'))
        assert.equal(JSON.parse(await shown('proof')).header.typ, 'dpop+jwt')
        const body = JSON.parse(await shown('api'))
        assert.equal(body.proof.accepted, true)
        assert.equal(body.claims.exp, claims.exp)
        assert.match(await shown('expiries'), /session\n.* in \d+ min \d\d s/)
      })

      test(`shows that the API refuses the token of a failed ${check} check`, async () => {
        await runWith(check, 'fail')
        assert.deepEqual(await states(), { ...allDone, api: 'failed' })
        assert.equal(JSON.parse(await shown('api')).error, 'RefusedByApi')
      })

      test(`shows an error of ${check} as an error of the service`, async () => {
        await runWith(check, 'error')
        assert.equal((await states()).token, 'failed')
        assert.equal(JSON.parse(await shown('token')).error, 'ApproovServiceError')
      })
    }

    test('shows every step of the check that is built in', async () => {
      await runWith('altcha', 'pass')
      assert.deepEqual(await states(), allDone)
    })

    test('calls again with the same session and without another request to the service', async () => {
      await runWith('recaptcha', 'pass')
      const begin = await logComplete(demo.service)
      await browser.webdriver.findElement(By.id('again')).click()
      await browser.webdriver.wait(
        async () =>
          (await states()).api === 'done' && (await browser.run(() => document.querySelector('#run:enabled') !== null)),
        HANG,
      )
      assert.deepEqual(await states(), allDone)
      // One line more: that of the request that completed the log.
      assert.equal(await logComplete(demo.service), begin + 1)
    })

    test('works by keyboard alone', async () => {
      await open()
      const press = (...keys) =>
        browser.webdriver
          .actions()
          .sendKeys(...keys)
          .perform()
      await press(Key.TAB, Key.ARROW_DOWN)
      assert.equal(
        await browser.run(() => document.querySelector('input[name=check]:checked').getAttribute('value')),
        'recaptcha',
      )
      await press(Key.TAB, Key.TAB, Key.TAB)
      assert.equal(await browser.run(() => document.activeElement.id), 'run')
      await press(Key.ENTER)
      await ended()
      assert.deepEqual(await states(), allDone)
    })

    test('fits a phone without scrolling sideways, and does not jump while it runs', async () => {
      await browser.webdriver.manage().window().setRect({ width: 500, height: 900 })
      await open()
      // Only Chromium reports layout shifts.
      const observed = await browser.run(() => {
        globalThis.shifts = []
        const supported = PerformanceObserver.supportedEntryTypes.includes('layout-shift')
        const note = (list) => globalThis.shifts.push(...list.getEntries().map((entry) => entry.value))
        if (supported) {
          const observer = new PerformanceObserver(note)
          observer.observe({ type: 'layout-shift', buffered: true })
          globalThis.noteTheRest = () => note({ getEntries: () => observer.takeRecords() })
        }
        return supported
      })
      assert.equal(observed, engine === 'chromium')
      await browser.webdriver.findElement(By.id('run')).click()
      await ended()
      const { width, scroll, shifts } = await browser.run(() => {
        globalThis.noteTheRest?.()
        return {
          width: document.documentElement.clientWidth,
          scroll: document.documentElement.scrollWidth,
          shifts: globalThis.shifts,
        }
      })
      assert.ok(scroll <= width, `${scroll} > ${width}`)
      assert.deepEqual(shifts, [])
    })

    test('fits the narrowest phones', async () => {
      await open()
      const scroll = await browser.run(async () => {
        const frame = Object.assign(document.createElement('iframe'), { src: location.href, width: 320, height: 700 })
        document.body.append(frame)
        await new Promise((resolve) => frame.addEventListener('load', resolve, { once: true }))
        return frame.contentDocument.documentElement.scrollWidth
      })
      assert.ok(scroll <= 320, `${scroll} pixels wide`)
    })

    test('fetches nothing from any other host', async () => {
      await runWith('hcaptcha', 'pass')
      const origins = await browser.run(() => [
        ...new Set(performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)),
      ])
      const own = [demo.site.url, demo.service.url, demo.api.url]
      assert.deepEqual(
        origins.filter((origin) => !own.includes(origin)),
        [],
      )
    })
  })
}
