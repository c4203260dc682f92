// Drives the demo in a headless browser: for each check a run that must be accepted and, where it is simulated, a failing one that the
// API must refuse; then every attack. Exits 0 when all of it was so. Started by `cargo xtask demo --check`.
import { startDemo } from '../../www-demo/demo.mjs'
import { openBrowser } from './harness/browser.mjs'
import { CHECKS, demoPage, REFUSALS } from './harness/demo.mjs'

const demo = await startDemo()
const browser = await openBrowser('chromium')
const page = demoPage(demo, browser)
let failures = 0
try {
  for (const check of CHECKS) await checkOne(check)
  await page.call('altcha')
  for (const [attack, code] of Object.entries(REFUSALS)) await attackOne(attack, code)
} finally {
  await browser.close()
  await demo.stop()
}
console.log(failures === 0 ? '\nThe demo works.' : `\n${failures} runs did not end as they must.`)
process.exitCode = failures === 0 ? 0 : 1

/** The runs with one check. */
async function checkOne(check) {
  await page.call(check)
  const passed = await page.shown()
  if (passed.state === 'done' && /"accepted": true/.test(passed.claims)) {
    console.log(`\n${check}: the API verified these claims, and accepted the proof`)
    console.log(passed.claims.slice(passed.claims.indexOf('What the API says')))
  } else {
    report(`${check}: a passing check was not accepted`, passed)
  }
  // A wrong solution of ALTCHA gives no token at all: the SDK solves another.
  if (check === 'altcha') return
  await page.call(check, 'fail')
  const failed = await page.shown()
  if (failed.state === 'refused' && failed.steps.token === 'decoy' && failed.apiLog.includes('token_signature')) {
    console.log(`${check}: a failing check was refused by the API: ${failed.apiLog}`)
  } else {
    report(`${check}: a failing check was not refused by the API`, failed)
  }
}

async function attackOne(attack, code) {
  await page.attack(attack)
  const shown = await page.shown()
  if (shown.attacks[attack] === `✗ 401 ${code}` && shown.apiLog.includes(code)) {
    console.log(`${attack}: refused, and logged by the API: ${shown.apiLog}`)
  } else {
    report(`${attack} was not refused with ${code}`, shown)
  }
}

function report(problem, shown) {
  failures += 1
  console.error(`\nFAILED: ${problem}\n${JSON.stringify(shown, null, 2)}`)
}
