// The demo page: every check, every outcome, every attack, by mouse and by keyboard, on a phone's width.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'

import { By, Key, until } from 'selenium-webdriver'

import { startDemo } from '../../../www-demo/demo.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { CHECKS, demoPage, REFUSALS } from '../harness/demo.mjs'
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

    const page = () => demoPage(demo, browser)
    const allDone = { key: 'done', check: 'done', token: 'done', proof: 'done', api: 'done' }

    for (const check of CHECKS) {
      test(`shows every step of a passed ${check} check`, async () => {
        await page().call(check)
        const shown = await page().shown()
        assert.deepEqual(shown.steps, allDone, JSON.stringify(shown))
        assert.equal(shown.state, 'done')
        assert.match(shown.claims, /"typ": "dpop\+jwt"/)
        assert.match(shown.claims, /"accepted": true/)
        assert.match(shown.apiLog, /^POST · \/shapes · 200$/)
        assert.match(shown.serviceLog, /^POST · \/attest · 200 · token/)
        assert.match(shown.http, /^GET .*\/attest$/m)
        assert.match(shown.code, /Approov\.createFetch\(/)
        assert.match(shown.expiries, /session in \d+ min \d\d s/)
      })
    }

    for (const check of CHECKS.filter((check) => check !== 'altcha')) {
      test(`shows no tick where a ${check} check failed, and that the API refuses its token`, async () => {
        await page().call(check, 'fail')
        const shown = await page().shown()
        assert.equal(shown.state, 'refused')
        assert.equal(shown.verdict, 'Refused: token_signature')
        assert.deepEqual(shown.steps, { ...allDone, check: 'failed', token: 'decoy', api: 'failed' })
        assert.match(shown.serviceLog, / · failed-check · /)
        assert.match(shown.apiLog, / · 401 · token_signature · /)
      })

      test(`shows an error of ${check} as an error of the service`, async () => {
        await page().call(check, 'error')
        const shown = await page().shown()
        assert.equal(shown.state, 'failed')
        assert.match(shown.detail, /^ApproovServiceError/)
        assert.deepEqual([shown.steps.token, shown.steps.api], ['failed', 'idle'])
      })
    }

    test('meets each attack with its own refusal, beside the line of the API’s log', async () => {
      await page().call('altcha')
      for (const [attack, code] of Object.entries(REFUSALS)) {
        await page().attack(attack)
        const shown = await page().shown()
        assert.equal(shown.attacks[attack], `✗ 401 ${code}`)
        assert.equal(shown.verdict, `Refused: ${code}`)
        assert.match(shown.response, new RegExp(`^401 · ${code} · `))
        const request =
          attack === 'other-method' ? 'GET · /shapes' : attack === 'other-url' ? 'POST · /orders' : 'POST · /shapes'
        assert.ok(shown.apiLog.startsWith(`${request} · 401 · ${code} · `), shown.apiLog)
        assert.equal(shown.steps.api, 'failed')
        if (attack === 'failed-check') assert.match(shown.serviceLog, / · failed-check · /)
        else assert.deepEqual([shown.steps.key, shown.steps.check], ['idle', 'idle'], attack)
      }
      await page().click('#again')
      await page().ended('done')
      assert.equal((await page().shown()).verdict, 'Let in: a real browser session.')
    })

    test('makes all attacks at once, and this browser still gets in', async () => {
      await page().call('altcha')
      await page().click('#all')
      await page().ended('protected', 'failed')
      const shown = await page().shown()
      assert.equal(shown.verdict, '8 of 8 attacks refused.')
      assert.match(shown.detail, /This browser called once more with its own key, and got in\./)
      assert.equal(shown.apiLog, 'POST · /shapes · 200')
      assert.deepEqual(shown.steps, { key: 'kept', check: 'kept', token: 'kept', proof: 'done', api: 'done' })
      assert.deepEqual(
        shown.attacks,
        Object.fromEntries(Object.entries(REFUSALS).map(([name, code]) => [name, `✗ 401 ${code}`])),
      )
    })

    test('steals nothing before there is something', async () => {
      await page().open()
      const before = demo.site.requests.length
      await page().click('[data-attack=replay]')
      const { verdict, attacks } = await page().shown()
      assert.equal(verdict, 'There is nothing to steal yet.')
      assert.equal(attacks.replay, 'not tried')
      assert.deepEqual(
        demo.site.requests.slice(before).filter((request) => !request.includes('log.json')),
        [],
      )
    })

    test('calls again with the same session and without another request to the service', async () => {
      await page().call('recaptcha')
      const begin = await logComplete(demo.service)
      await page().click('#again')
      await page().ended('done')
      await browser.webdriver.wait(async () => /from the cache/.test((await page().shown()).detail), HANG)
      const { detail, steps, serviceLog } = await page().shown()
      assert.match(detail, /from the cache, 0 requests to the service/)
      assert.deepEqual(steps, { key: 'kept', check: 'kept', token: 'kept', proof: 'done', api: 'done' })
      assert.equal(serviceLog, 'nothing: it was not asked')
      // One line more: that of the request that completed the log.
      assert.equal(await logComplete(demo.service), begin + 1)
    })

    for (const check of ['hcaptcha', 'turnstile', 'friendly']) {
      test(`shows the widget of ${check} in the diagram, and goes on after a click`, async () => {
        await page().open(`check=${check}`)
        await page().click('#run')
        const button = await browser.webdriver.wait(until.elementLocated(By.css('#widget button')), HANG)
        assert.equal((await page().shown()).steps.token, 'idle')
        await button.click()
        await page().ended('done', 'refused', 'failed')
        assert.deepEqual((await page().shown()).steps, allDone)
      })
    }

    test('a link lets happen what it shares', async () => {
      await page().open('check=fingerprint&tab=http&attack=no-proof')
      await page().ended('refused')
      const { hash, tab, check } = await page().run(() => ({
        hash: location.hash,
        tab: /** @type {HTMLElement} */ (document.querySelector('[role=tab][aria-selected=true]')).dataset.tab,
        check: /** @type {HTMLInputElement} */ (document.querySelector('input[name=check]:checked')).value,
      }))
      assert.deepEqual(
        { hash, tab, check },
        { hash: '#check=fingerprint&tab=http&attack=no-proof', tab: 'http', check: 'fingerprint' },
      )
      assert.equal((await page().shown()).verdict, 'Refused: proof_missing')
    })

    test('works by keyboard alone, and keeps the focus', async () => {
      await page().open('click=no')
      const press = (...keys) =>
        browser.webdriver
          .actions()
          .sendKeys(...keys)
          .perform()
      const focused = () => page().run(() => document.activeElement.id || document.activeElement.getAttribute('name'))
      await page().run(() => document.getElementById('run').focus())
      await press(Key.TAB, Key.TAB)
      assert.equal(await focused(), 'check')
      await press(Key.ARROW_DOWN)
      assert.equal(
        await page().run(() => document.querySelector('input[name=check]:checked').getAttribute('value')),
        'hcaptcha',
      )
      await page().run(() => document.getElementById('run').focus())
      await press(Key.ENTER)
      await page().ended('done', 'failed', 'refused')
      assert.deepEqual((await page().shown()).steps, allDone)
      await page().run(() => document.getElementById('all').focus())
      await press(Key.ENTER)
      await page().ended('protected', 'failed')
      assert.equal(await focused(), 'all')
      assert.equal((await page().shown()).verdict, '8 of 8 attacks refused.')
      await page().run(() => document.getElementById('tab-claims').focus())
      await press(Key.ARROW_RIGHT)
      assert.equal(await focused(), 'tab-http')
    })

    test('keeps a strict policy, which nothing on the page violates', async () => {
      const { headers } = await fetch(demo.site.url)
      const policy = headers.get('content-security-policy')
      assert.match(policy, /^default-src 'none'; script-src 'self' 'wasm-unsafe-eval' http:\/\/127\.0\.0\.1:\d+; /)
      assert.ok(!policy.includes('unsafe-inline') && !policy.includes('https:'), policy)
      const own = await fetch(`${demo.site.url}/?turnstileSiteKey=1x00`)
      assert.match(
        own.headers.get('content-security-policy'),
        /frame-src 'self' https:\/\/challenges\.cloudflare\.com;/,
      )
      await page().open('check=turnstile&click=no')
      await page().run(() => {
        const { dataset } = document.documentElement
        dataset.violations = ''
        document.addEventListener(
          'securitypolicyviolation',
          ({ blockedURI }) => (dataset.violations += `${blockedURI} `),
        )
      })
      await page().click('#run')
      await page().ended('done', 'failed', 'refused')
      assert.equal((await page().shown()).state, 'done')
      assert.equal(await page().run(() => document.documentElement.dataset.violations), '')
    })

    test('has no secret in the log that it shows', async () => {
      await page().call('altcha')
      const [token, proof] = await page().run(() => {
        ;/** @type {HTMLElement} */ (document.querySelector('[data-tab=http]')).click()
        const text = document.querySelector('#panel').textContent
        return [/approov-token: (\S{40})/, /dpop: (\S{40})/].map((pattern) => pattern.exec(text)[1])
      })
      const log = await (await fetch(`${demo.site.url}/log.json?after=1`)).text()
      assert.match(log, /"source":"api"/)
      for (const secret of [token, proof, demo.service.account.secret]) assert.ok(!log.includes(secret))
    })

    test('borders stand out from their ground by 3:1, in light and in dark', async () => {
      await page().open()
      const ratios = await page().run(() => {
        const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        const luminance = (color) => {
          const [r, g, b] = color.match(/[\d.]+/g).map((value) => channel(Number(value) / 255))
          return 0.2126 * r + 0.7152 * g + 0.0722 * b
        }
        const ratio = (one, other) => {
          const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a)
          return (high + 0.05) / (low + 0.05)
        }
        const root = document.documentElement
        return ['light', 'dark'].flatMap((scheme) => {
          root.style.colorScheme = scheme
          const ground = getComputedStyle(document.body).backgroundColor
          return Array.from(
            document.querySelectorAll('.node, .verdict, .attack, #again, select, .evidence, pre'),
            (element) => ({
              what: `${scheme} ${element.id || element.className}`,
              ratio: ratio(getComputedStyle(element).borderTopColor, ground),
            }),
          )
        })
      })
      assert.ok(ratios.length > 20)
      assert.deepEqual(
        ratios.filter(({ ratio }) => !(ratio >= 3)),
        [],
      )
    })

    test('on a phone the verdict comes into view', async () => {
      await browser.webdriver.manage().window().setRect({ width: 500, height: 700 })
      await page().call('altcha')
      await page().attack('expired')
      const { top, bottom, height } = await page().run(() => {
        const { top, bottom } = document.getElementById('verdict').getBoundingClientRect()
        return { top, bottom, height: innerHeight }
      })
      assert.ok(top >= 0 && bottom <= height, `${top} to ${bottom} of ${height}`)
    })

    test('fits a phone without scrolling sideways, and does not jump while it runs', async () => {
      await browser.webdriver.manage().window().setRect({ width: 500, height: 900 })
      await page().open()
      // Only Chromium reports layout shifts.
      const observed = await page().run(() => {
        const { dataset } = document.documentElement
        dataset.shifts = ''
        const supported = PerformanceObserver.supportedEntryTypes.includes('layout-shift')
        const describe = ({ value, sources }) =>
          [value, ...sources.map(({ node }) => `${node?.nodeName} ${node?.className}`)].join(' ')
        const note = (list) => (dataset.shifts += list.getEntries().map(describe).join())
        if (supported) {
          const observer = new PerformanceObserver(note)
          observer.observe({ type: 'layout-shift', buffered: true })
          globalThis.noteTheRest = () => note({ getEntries: () => observer.takeRecords() })
        }
        return supported
      })
      assert.equal(observed, engine === 'chromium')
      await page().click('#run')
      await page().ended('done', 'failed', 'refused')
      const { width, scroll, shifts } = await page().run(() => {
        globalThis.noteTheRest?.()
        return {
          width: document.documentElement.clientWidth,
          scroll: document.documentElement.scrollWidth,
          shifts: document.documentElement.dataset.shifts,
        }
      })
      assert.ok(scroll <= width, `${scroll} > ${width}`)
      assert.equal(shifts, '')
    })

    test('fits the narrowest phones', async () => {
      await page().open()
      const scroll = await browser.webdriver.executeAsyncScript((done) => {
        const frame = Object.assign(document.createElement('iframe'), { src: location.href, width: 320, height: 700 })
        frame.addEventListener('load', () => done(frame.contentDocument.documentElement.scrollWidth), { once: true })
        document.body.append(frame)
      })
      assert.ok(scroll <= 320, `${scroll} pixels wide`)
    })

    test('fetches nothing from any other host', async () => {
      await page().call('hcaptcha')
      const origins = await page().run(() => [
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
