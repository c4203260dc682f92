// Measures the SDK beside npm packages in each engine. Started by `cargo xtask bench sdk`.
import { execFileSync } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { chosenEngines, ENGINES } from '../e2e/harness/engines.mjs'
import { startWorld } from '../e2e/harness/world.mjs'
import { machine, median, spread, table, verdict, writeResult } from './report.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const quick = process.env.APPROOV_BENCH === 'quick'
const effort = quick ? { rounds: 3, milliseconds: 60 } : { rounds: 9, milliseconds: 200 }

/** Against npm `dpop`, per key store and engine; microseconds; milliseconds. */
const BUDGET = {
  webcrypto: { chromium: 1.2, firefox: 1.2, webkit: 1 },
  wasm: { chromium: 0.6, firefox: 1, webkit: 4 },
  cached: 10,
  ready: { chromium: 20 },
  beyondRoundTrip: 5,
}

const peers = join(mkdtempSync(join(tmpdir(), 'approov-bench-')), 'peers.js')
execFileSync(here('node_modules/.bin/esbuild'), [
  here('peers.js'),
  '--bundle',
  '--format=esm',
  '--target=es2022',
  '--minify',
  '--log-level=warning',
  `--outfile=${peers}`,
])
const mounts = { '/peers.js': peers, '/measure.js': here('measure.js') }

/** Everything that is measured in one engine. */
async function measure(engine) {
  const world = await startWorld(engine, { mounts })
  try {
    const inPage = async (name) => {
      await world.freshPage()
      return world.run(async (settings, name, effort) => (await import('/measure.js'))[name](settings, effort), world.settings, name, effort)
    }
    const result = {
      proofs: await inPage('proofs'),
      signatures: await inPage('signatures'),
      keys: await inPage('keys'),
      cached: await inPage('cached'),
    }
    const begin = attests(world).length
    result.concurrentTokens = await inPage('concurrent')
    await calm()
    result.concurrentRequests = attests(world).slice(begin).filter((entry) => entry.method === 'POST').length
    result.ready = await onFreshPages(world, untilReady)
    return result
  } finally {
    await world.stop()
  }
}

/** With a service that is 100 ms away: from the solved challenge to the token. */
async function measureDistance(engine) {
  const world = await startWorld(engine, { serviceArgs: ['--latency', '100'] })
  try {
    const milliseconds = []
    const roundTrips = []
    const beyond = []
    for (let i = 0; i < (quick ? 3 : 9); i++) {
      await world.freshPage()
      await world.run(prepareVisit, world.settings)
      await calm()
      const begin = attests(world).length
      const took = await world.run(solveChallenge, world.settings)
      await calm()
      const requests = attests(world).slice(begin)
      milliseconds.push(took)
      roundTrips.push(requests.length)
      // What the service itself took for it, the added latency and its question to the check service included.
      beyond.push(took - requests.reduce((sum, request) => sum + request.ms, 0))
    }
    // A browser that has just started forgets its first preflights; a visitor's has those behind it.
    return { milliseconds: milliseconds.slice(2), roundTrips: roundTrips.slice(2), beyond: beyond.slice(2) }
  } finally {
    await world.stop()
  }
}

const attests = (world) => world.service.log.filter((entry) => entry.path === '/attest')
const calm = () => new Promise((resolve) => setTimeout(resolve, 250))

/** The values of a measurement on several fresh pages. */
async function onFreshPages(world, work) {
  const values = []
  for (let i = 0; i < (quick ? 3 : 9); i++) {
    await world.freshPage()
    values.push(await world.run(work, world.settings))
  }
  return values
}

// These run in the page.

async function untilReady({ approovHost, approovSiteKey, keys }) {
  const begin = performance.now()
  const { Approov } = await import('/approov.js')
  await Approov.initializeSession({ approovHost, approovSiteKey, ...keys.hcaptcha })
  return performance.now() - begin
}

async function prepareVisit(settings) {
  const { Approov } = await import('/approov.js')
  const { passCheck, sessionOptions } = await import('/flow.js')
  await Approov.initializeSession(sessionOptions(settings, 'hcaptcha'))
  globalThis.result = await passCheck(settings, 'hcaptcha')
  await new Promise((resolve) => setTimeout(resolve, 700)) // a visitor at the challenge
}

async function solveChallenge(settings) {
  const { Approov } = await import('/approov.js')
  const begin = performance.now()
  await Approov.fetchToken(settings.api, globalThis.result)
  return performance.now() - begin
}

const report = { machine: machine(), effort, engines: {} }
const rows = []
for (const engine of chosenEngines()) {
  console.log(`measuring in ${ENGINES[engine].title} …`)
  const measured = { ...(await measure(engine)), distance: await measureDistance(engine) }
  report.engines[engine] = measured
  const title = ENGINES[engine].title
  const rate = (values) => `${median(values).toFixed(0)}/s ±${spread(values)} %`
  const peer = median(measured.proofs['npm dpop'])
  for (const [name, values] of Object.entries(measured.proofs)) {
    const ratio = median(values) / peer
    const budget = { 'SDK, WebCrypto key': BUDGET.webcrypto[engine], 'SDK, wasm key': BUDGET.wasm[engine] }[name]
    rows.push([title, `proof, ${name}`, rate(values), `${ratio.toFixed(2)} × npm dpop`, ...verdict(budget, ratio >= budget, `≥ ${budget} ×`)])
  }
  for (const [name, values] of Object.entries(measured.signatures)) rows.push([title, `message signature, ${name}`, rate(values), '', ...verdict()])
  for (const [name, values] of Object.entries(measured.keys)) rows.push([title, `new key, ${name}`, rate(values), '', ...verdict()])
  const cached = median(measured.cached)
  rows.push([title, 'cached fetchToken', `${cached.toFixed(2)} µs`, '', ...verdict(BUDGET.cached, cached <= BUDGET.cached, `≤ ${BUDGET.cached} µs`)])
  const { concurrentRequests, concurrentTokens } = measured
  rows.push([title, '1,000 concurrent fetchToken', `${concurrentRequests} request, ${concurrentTokens} token`, '', ...verdict(1, concurrentRequests === 1 && concurrentTokens === 1, '1 request')])
  const ready = median(measured.ready)
  rows.push([title, 'import → session ready', `${ready.toFixed(1)} ms`, '', ...verdict(BUDGET.ready[engine], ready <= BUDGET.ready[engine], `≤ ${BUDGET.ready[engine]} ms`)])
  const trips = Math.max(...measured.distance.roundTrips)
  const beyond = median(measured.distance.beyond)
  rows.push([
    title,
    'challenge → token, 100 ms away',
    `${median(measured.distance.milliseconds).toFixed(1)} ms`,
    `${trips} round trip + ${beyond.toFixed(1)} ms`,
    ...verdict(BUDGET.beyondRoundTrip, trips === 1 && beyond <= BUDGET.beyondRoundTrip, `1 + ${BUDGET.beyondRoundTrip} ms`),
  ])
}
writeResult('sdk', report)
table(['engine', 'what', 'measured', 'against', 'budget', 'holds'], rows)
