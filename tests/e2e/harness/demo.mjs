// The demo page as a visitor uses it, by its own controls.
import { By, until } from 'selenium-webdriver'

import { HANG } from './wait.mjs'

export const CHECKS = ['altcha', 'hcaptcha', 'recaptcha', 'recaptchaEnterprise', 'turnstile', 'friendly', 'fingerprint']

/** Each attack, with the code with which the API refuses it. */
export const REFUSALS = {
  replay: 'proof_replayed',
  'other-url': 'proof_url',
  'other-method': 'proof_method',
  'altered-body': 'message_mismatch',
  'other-key': 'proof_key_mismatch',
  'no-proof': 'proof_missing',
  expired: 'token_expired',
  'failed-check': 'token_signature',
}

/** @param {any} demo what `startDemo` started @param {any} browser */
export function demoPage(demo, { webdriver }) {
  // Not the harness's `run`: the page's policy forbids eval.
  const run = (work, ...args) => webdriver.executeScript(work, ...args)
  const click = async (selector) => {
    const element = await webdriver.findElement(By.css(selector))
    await element.click()
  }
  /** Waits until the last action has ended. */
  const ended = (...states) => {
    const selector = states.map((state) => `#verdict[data-state=${state}]`).join(', ')
    return webdriver.wait(until.elementLocated(By.css(`body:has(#run[aria-disabled=false]) :is(${selector})`)), HANG)
  }
  const page = {
    run,
    click,
    ended,
    async open(fragment = '', query = '') {
      // By way of another document: a changed fragment alone is no new page.
      await webdriver.get('about:blank')
      await webdriver.get(`${demo.site.url}/${query}#${fragment}`)
      await webdriver.wait(until.elementLocated(By.css('html[data-ready]')), HANG)
    },
    /** A call with this check and outcome, on a fresh page. */
    async call(check, outcome = 'pass') {
      await page.open(`check=${check}&outcome=${outcome}&click=no`)
      await click('#run')
      await ended('done', 'refused', 'failed')
    },
    async attack(name) {
      await click(`[data-attack=${name}]`)
      await webdriver.wait(
        until.elementLocated(By.css(`[data-attack=${name}]:is([data-state=refused], [data-state=failed])`)),
        HANG,
      )
      await ended('refused', 'failed', 'done', 'protected')
    },
    /** What the page shows. */
    shown: () =>
      run(() => {
        const text = (selector) => document.querySelector(selector).textContent
        const tab = (name) => {
          ;/** @type {HTMLElement} */ (document.querySelector(`[data-tab=${name}]`)).click()
          return text('#panel')
        }
        const attributes = (selector, name, attribute = 'state') =>
          Object.fromEntries(
            Array.from(document.querySelectorAll(selector), ({ dataset }) => [dataset[name], dataset[attribute]]),
          )
        return {
          state: /** @type {HTMLElement} */ (document.querySelector('#verdict')).dataset.state,
          verdict: text('#verdict-title'),
          detail: text('#verdict-detail'),
          steps: attributes('[data-step]', 'step'),
          attacks: Object.fromEntries(
            Array.from(document.querySelectorAll('.attack'), (/** @type {HTMLElement} */ button) => [
              button.dataset.attack,
              button.querySelector('output').textContent,
            ]),
          ),
          response: text('#response-line'),
          apiLog: text('#api-line'),
          serviceLog: text('#service-line'),
          expiries: text('#expiries'),
          http: tab('http'),
          code: tab('code'),
          claims: tab('claims'),
        }
      }),
  }
  return page
}
