// Measures the SDK next to its peers, in each engine in the same pages, and writes the raw rounds as JSON. Started by
// `cargo xtask bench`, which makes tables of them.
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { serveSite, startService } from '../../../www-demo/stack.mjs'
import { openBrowser } from '../harness/browser.mjs'
import { chosenEngines, ENGINES } from '../harness/engines.mjs'
import { unpackTarball } from '../harness/world.mjs'

/** The bundler that makes the package bundles the peers, too. @type {typeof import('esbuild')} */
const { build } = createRequire(new URL('../../../xtask/package.json', import.meta.url))('esbuild')

const { values: options } = parseArgs({
  options: {
    output: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    latency: { type: 'string', default: '100' },
  },
})
const ROUNDS = Number(options.rounds)
/** Turns of each subject in one round, and how long one is, in milliseconds. */
const TURNS = { slice: 40, slices: 4 }
/** How long the visitor takes to solve a challenge, in milliseconds. */
const CHALLENGE = 600
const CONCURRENT = 1000
const CACHED_CALLS = 2000
const WRAPPED_CALLS = 200
const API = 'localhost'
const PEERS = ['dpop', 'jose', 'noble', 'webcrypto']

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/** The rounds of all measurements. */
const series = new Map()
function record(engine, measure, subject, unit, value) {
  const id = JSON.stringify([engine, measure, subject])
  if (!series.has(id)) series.set(id, { engine, measure, subject, unit, rounds: [] })
  series.get(id).rounds.push(value)
}

/** Every peer as one minified module, as a bundler would deliver it. */
async function bundleSubjects(directory) {
  await build({
    entryPoints: ['approov', 'wrappers', ...PEERS].map((name) => here(`subjects/${name}.js`)),
    nodePaths: [here('peers/node_modules')],
    outdir: directory,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    logLevel: 'warning',
  })
}

const sessionSettings = (service) => ({
  session: {
    approovHost: service.url,
    approovSiteKey: service.account.site_key,
    hcaptchaSiteKey: service.account.hcaptcha_site_key,
  },
})

function subjectsFor(service) {
  const ours = (keyStorage, file = '/approov.js') => ({
    module: '/subjects/approov.js',
    options: { file, settings: sessionSettings(service), keyStorage },
  })
  const peers = PEERS.map((name) => [name, { module: `/subjects/${name}.js` }])
  return {
    'ours (auto)': ours('auto'),
    'ours (wasm)': ours('wasm'),
    'ours (compat)': ours('auto', '/approov.compat.js'),
    ...Object.fromEntries(peers),
  }
}

/** The names, each round beginning with another one. */
const rotated = (names, round) => [...names.slice(round % names.length), ...names.slice(0, round % names.length)]

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** A result that the simulated check service passes, never used before. */
let results = 0
const freshResult = () => ({ hcaptchaToken: `sim-pass-bench${process.pid}x${results++}` })

const temporary = await mkdtemp(join(tmpdir(), 'approov-bench-'))
const cleanups = [() => rm(temporary, { recursive: true, force: true })]
try {
  const unpacked = await unpackTarball()
  cleanups.push(unpacked.remove)
  await bundleSubjects(temporary)
  const site = await serveSite({
    mounts: {
      '/': here('pages'),
      '/approov.js': join(unpacked.path, 'approov.js'),
      '/approov.compat.js': join(unpacked.path, 'approov.compat.js'),
      '/subjects': temporary,
      '/altcha.js': here('../node_modules/altcha/dist/main/altcha.min.js'),
    },
    // Isolated pages have finer clocks.
    headers: { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' },
  })
  cleanups.push(site.stop)
  const near = await startService()
  cleanups.push(near.stop)
  const far = await startService({ args: ['--latency', options.latency] })
  cleanups.push(far.stop)

  const versions = {}
  for (const engine of chosenEngines()) {
    console.log(`${ENGINES[engine].title}…`)
    const browser = await openBrowser(engine)
    try {
      const capabilities = await browser.webdriver.getCapabilities()
      versions[engine] = `${ENGINES[engine].title} ${capabilities.getBrowserVersion()}`
      const world = { engine, browser, site, near, far, subjects: subjectsFor(near) }
      await openPage(world)
      await warmUp(world)
      await steady(world)
      await cold(world)
      await concurrent(world)
      await challenge(world)
      await proofOfWork(world)
      await wrappers(world)
    } finally {
      await browser.close()
    }
  }
  await writeFile(options.output, JSON.stringify({ engines: versions, series: [...series.values()] }, null, 1))
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup()
}

/**
 * The same ALTCHA challenges, of the service's default difficulty, solved by the SDK and by the official widget: how long it takes, and the
 * longest time in which nothing else could run on the page's thread.
 */
async function proofOfWork(world) {
  await openPage(world)
  for (let round = 0; round < ROUNDS; round++) {
    const hex = () => randomBytes(16).toString('hex')
    const parameters = {
      algorithm: 'PBKDF2/SHA-256',
      cost: 600,
      data: { use: 'check' },
      expiresAt: Math.ceil(Date.now() / 1000) + 600,
      keyLength: 32,
      keyPrefix: '000',
      nonce: hex(),
      salt: hex(),
    }
    const solved = await world.browser.run(
      async (session, challenge, oursFirst) => {
        // The service's part is played here: only the work is measured.
        const json = (status, body) =>
          new Response(JSON.stringify(body), {
            status,
            headers: { 'Content-Type': 'application/json', 'DPoP-Nonce': 'n' },
          })
        const state = /** @type {any} */ (globalThis.work ??= {})
        if (!state.Approov) {
          globalThis.fetch = async (_, init) => {
            if (init.method === 'GET') return json(200, { altcha: state.challenge })
            state.posted(performance.now())
            return json(400, { 'aprv-no-site-key': '' })
          }
          ;({ Approov: state.Approov } = await import(/** @type {any} */ ('/approov.js?work')))
          await import(/** @type {any} */ ('/altcha.js'))
        }
        /** What work takes, and the longest gap between two turns of the page's thread meanwhile. */
        const timed = async (work) => {
          let last = performance.now()
          let longest = 0
          const timer = setInterval(() => {
            const now = performance.now()
            longest = Math.max(longest, now - last)
            last = now
          })
          const begin = performance.now()
          const end = await work()
          clearInterval(timer)
          return { time: end - begin, blocked: Math.max(longest, performance.now() - last) }
        }
        const ours = async () => {
          state.challenge = challenge
          await state.Approov.initializeSession(session)
          await new Promise((resolve) => setTimeout(resolve, 50))
          return timed(async () => {
            const posted = new Promise((resolve) => (state.posted = resolve))
            state.Approov.fetchToken('localhost').catch(() => {})
            return posted
          })
        }
        const official = async () => {
          const widget = /** @type {any} */ (document.createElement('altcha-widget'))
          widget.setAttribute('challenge', JSON.stringify(challenge))
          widget.setAttribute('configuration', JSON.stringify({ humanInteractionSignature: false, minDuration: 0 }))
          const verified = new Promise((resolve) =>
            widget.addEventListener('verified', () => resolve(performance.now())),
          )
          document.body.append(widget)
          await new Promise((resolve) => setTimeout(resolve, 200))
          const outcome = await timed(async () => {
            widget.verify()
            return verified
          })
          widget.remove()
          return outcome
        }
        const result = {}
        const turns = { ours, official }
        for (const name of oursFirst ? ['ours', 'official'] : ['official', 'ours']) result[name] = await turns[name]()
        return result
      },
      { ...sessionSettings(world.near).session, hcaptchaSiteKey: undefined, altchaSiteKey: 'any' },
      { parameters, signature: 'not verified here' },
      round % 2 === 0,
    )
    for (const [name, subject] of [
      ['ours', 'ours (auto)'],
      ['official', 'altcha widget'],
    ]) {
      record(world.engine, 'ALTCHA solved', subject, 'ms', solved[name].time)
      record(world.engine, 'ALTCHA, longest block', subject, 'ms', solved[name].blocked)
    }
  }
}

/** What a fetch with token and proof adds to one without, in microseconds a call, beside Auth0's and atproto's wrappers. */
async function wrappers(world) {
  await openPage(world)
  await world.browser.run(
    async (options) => {
      const { load } = await import(/** @type {any} */ ('/subjects/wrappers.js'))
      globalThis.prepared = await load(options)
    },
    { file: '/approov.js', session: sessionSettings(world.near).session, result: freshResult() },
  )
  for (let round = 0; round <= ROUNDS; round++) {
    const times = await world.browser.run(
      async (names, count) => {
        const times = {}
        for (const name of names) {
          const begin = performance.now()
          for (let call = 0; call < count; call++) await prepared[name]()
          times[name] = ((performance.now() - begin) / count) * 1000
        }
        return times
      },
      rotated(['bare', 'ours', 'auth0', 'atproto'], round),
      WRAPPED_CALLS,
    )
    // The first round is the warm-up.
    if (round === 0) continue
    for (const [name, subject] of Object.entries({
      ours: 'ours (auto)',
      auth0: 'auth0 fetcher',
      atproto: 'atproto wrapper',
    })) {
      record(world.engine, 'fetch with token and proof, added', subject, 'µs', times[name] - times.bare)
    }
  }
}

/** A fresh page: nothing loaded, no session. */
async function openPage({ browser, site }) {
  await browser.webdriver.get(`${site.url}/`)
}

/**
 * A browser that has just started is not what a visitor has: it compiles its own code, and Firefox forgets the first two
 * preflight responses of its life.
 */
async function warmUp({ browser, near }) {
  await browser.run(async (url) => {
    if (!crossOriginIsolated) console.warn('coarse clocks')
    for (let i = 0; i < 4; i++) await fetch(url, { headers: { dpop: 'none' } })
  }, `${near.url}/attest`)
}

/** Proofs, signatures and keys of all subjects in one page, and the cached `fetchToken`. */
async function steady(world) {
  const { engine, browser, subjects } = world
  await openPage(world)
  await browser.run(async (subjects) => (await import('/measure.js')).prepare(subjects), subjects)
  const able = await browser.run(() =>
    Object.fromEntries(
      ['proof', 'sign', 'key'].map((measure) => [
        measure,
        Object.keys(prepared).filter((name) => prepared[name][measure]),
      ]),
    ),
  )
  for (const measure of ['proof', 'sign']) {
    for (let round = 0; round < ROUNDS; round++) {
      const names = rotated(able[measure], round)
      const rates = await browser.run(
        async (...args) => (await import('/measure.js')).round(...args),
        measure,
        names,
        TURNS,
      )
      for (const name of able[measure]) record(engine, measure, name, 'per second', rates[name])
    }
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of rotated(able.key, round)) {
      record(
        engine,
        'key',
        name,
        'ms',
        await browser.run(async (name) => (await import('/measure.js')).keys(name), name),
      )
      // The nonce requests of the sessions just made are not the next subject's.
      await pause(100)
    }
  }
  await browser.run(
    async (settings, api, result) => {
      const { Approov } = prepared['ours (auto)']
      await Approov.initializeSession(settings.session)
      await Approov.fetchToken(api, result)
    },
    sessionSettings(world.near),
    API,
    freshResult(),
  )
  for (let round = 0; round <= ROUNDS; round++) {
    const value = await browser.run(
      async (...args) => (await import('/measure.js')).cached(...args),
      'ours (auto)',
      API,
      CACHED_CALLS,
    )
    // The first round is the warm-up.
    if (round > 0) record(engine, 'cached fetchToken', 'ours (auto)', 'µs', value)
  }
}

/** Import, first key and first proof, in a fresh page for each subject and round. */
async function cold(world) {
  const { engine, browser, subjects } = world
  const names = Object.keys(subjects)
  for (let round = 0; round < ROUNDS; round++) {
    for (const name of rotated(names, round)) {
      await openPage(world)
      const times = await browser.run(async (subject) => (await import('/measure.js')).cold(subject), subjects[name])
      record(engine, 'import to ready', name, 'ms', times.ready)
      if (name !== 'webcrypto') record(engine, 'first proof', name, 'ms', times.proof)
    }
  }
}

/** How many requests the service sees for many calls at once. */
async function concurrent(world) {
  const { engine, browser, near } = world
  for (let round = 0; round < 3; round++) {
    await openPage(world)
    const before = near.log.length
    const tokens = await browser.run(
      async (settings, api, result, count) => {
        const { Approov } = await import('/approov.js')
        await Approov.initializeSession(settings.session)
        const tokens = await Promise.all(Array.from({ length: count }, () => Approov.fetchToken(api, result)))
        return { distinct: new Set(tokens).size, count: tokens.length }
      },
      sessionSettings(near),
      API,
      freshResult(),
      CONCURRENT,
    )
    if (tokens.distinct !== 1 || tokens.count !== CONCURRENT)
      throw new Error(`expected one token ${CONCURRENT} times, got ${JSON.stringify(tokens)}`)
    await pause(150)
    const posts = near.log.slice(before).filter((entry) => entry.path === '/attest' && entry.method === 'POST')
    record(engine, 'concurrent fetchToken', 'ours (auto)', 'requests', posts.length)
  }
}

/** From the moment the challenge is solved to the token, with a service that is far away. */
async function challenge(world) {
  const { engine, browser, far } = world
  for (let round = 0; round < ROUNDS; round++) {
    await openPage(world)
    await browser.run(
      async (settings, wait) => {
        const { Approov } = await import('/approov.js')
        await Approov.initializeSession(settings.session)
        await new Promise((resolve) => setTimeout(resolve, wait))
      },
      sessionSettings(far),
      CHALLENGE,
    )
    await pause(150)
    const before = far.log.length
    const token = await browser.run(
      async (api, result) => {
        const { Approov } = await import('/approov.js')
        const begin = performance.now()
        await Approov.fetchToken(api, result)
        return performance.now() - begin
      },
      API,
      freshResult(),
    )
    await pause(150)
    const requests = far.log.slice(before).filter((entry) => entry.path === '/attest')
    // The same round trip with nothing around it.
    const bare = await browser.run(async (url) => {
      const begin = performance.now()
      await (await fetch(url, { method: 'POST', body: 'x' })).text()
      return performance.now() - begin
    }, `${far.url}/attest`)
    record(engine, 'challenge to token, round trips', 'ours (auto)', 'requests', requests.length)
    record(engine, 'challenge to token, beyond the latency', 'ours (auto)', 'ms', token - Number(options.latency))
    record(engine, 'challenge to token, beyond the latency', 'bare fetch', 'ms', bare - Number(options.latency))
  }
}
