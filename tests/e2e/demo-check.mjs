// Drives the demo in a headless browser: for each check service a run that must be accepted, then one with a failing
// check that the API must refuse. Exits 0 when all of it was so. Started by `cargo xtask demo --check`.
import { By, until } from 'selenium-webdriver'

import { startDemo } from '../../www-demo/demo.mjs'
import { openBrowser } from './harness/browser.mjs'
import { HANG } from './harness/wait.mjs'

const CHECKS = ['hcaptcha', 'recaptcha', 'fingerprint', 'turnstile', 'friendly']

const demo = await startDemo()
const browser = await openBrowser('chromium')
let failures = 0
try {
  for (const check of CHECKS) await checkOne(check)
} finally {
  await browser.close()
  await demo.stop()
}
console.log(
  failures === 0 ? '\nThe demo works.' : `\n${failures} of ${2 * CHECKS.length} runs did not end as they must.`,
)
process.exitCode = failures === 0 ? 0 : 1

/** Both runs with one check service. */
async function checkOne(check) {
  const passed = await runDemo(check, 'pass')
  const body = passed.steps.api.state === 'done' ? JSON.parse(passed.steps.api.text) : undefined
  if (passed.state === 'done' && body?.proof?.accepted === true) {
    console.log(`\n${check}: the API verified these claims, and accepted the proof`)
    console.log(JSON.stringify(body.claims, null, 2))
    console.log(`proof: ${JSON.stringify(body.proof)}`)
  } else {
    report(`${check}: a passing check was not accepted`, passed)
  }

  const failed = await runDemo(check, 'fail')
  const refusal = failed.steps.api.state === 'failed' ? JSON.parse(failed.steps.api.text) : undefined
  if (failed.state === 'failed' && failed.steps.token.state === 'done' && refusal?.error === 'RefusedByApi') {
    console.log(`${check}: a failing check was refused by the API: ${JSON.stringify(refusal.response)}`)
  } else {
    report(`${check}: a failing check was not refused by the API`, failed)
  }
}

function report(problem, run) {
  failures += 1
  console.error(`\nFAILED: ${problem}\n${JSON.stringify(run, null, 2)}`)
}

/** One run on a fresh page, by its own controls; how it ended and what each step showed. */
async function runDemo(check, outcome) {
  const { webdriver } = browser
  await webdriver.get(demo.site.url)
  await webdriver.findElement(By.css(`input[name=check][value=${check}]`)).click()
  await webdriver.findElement(By.css(`select[name=outcome] option[value=${outcome}]`)).click()
  await webdriver.findElement(By.id('run')).click()
  await webdriver.wait(until.elementLocated(By.css('#outcome[data-state=done], #outcome[data-state=failed]')), HANG)
  return webdriver.executeScript(() => ({
    outcome: document.getElementById('outcome').textContent,
    state: document.getElementById('outcome').dataset.state,
    steps: Object.fromEntries(
      Array.from(document.querySelectorAll('[data-step]'), (item) => [
        item.dataset.step,
        { state: item.dataset.state, text: item.querySelector('pre').textContent },
      ]),
    ),
  }))
}
