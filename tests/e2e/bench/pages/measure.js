// Runs in the page: loads a subject, and measures what it does. All times are in milliseconds.

/** What every proof is for: a request with a token of the usual size. */
const REQUEST = {
  method: 'POST',
  url: 'https://api.example.com/shapes',
  nonce: 'eyJ0eXAiOiJub25jZSJ9.kJ1xYw0hRrm2yq3l5m3v6w',
  token: `${'eyJhbGciOiJIUzI1NiJ9'}.${'eyJleHAiOjE4MDAwMDAxMjAsImlwIjoiMTkyLjAuMi4xIn0'.repeat(5)}.${'A'.repeat(43)}`,
}

/** What is signed: a body of half a kilobyte. */
const MESSAGE = new TextEncoder().encode('{"shape":"circle"}'.repeat(28))

const now = () => performance.now()

/** The subject of this name, loaded; `settings` is what this project's SDK needs. */
export async function load({ module, options }) {
  const { load } = await import(module)
  return load(options ?? {})
}

/** From nothing: the subject's import, its first key, its first proof, each in a page that has done nothing else. */
export async function cold(subject) {
  // What only adapts this project's SDK to the benchmark is no part of it.
  if (subject.options) await import(subject.module)
  const begin = now()
  const loaded = await load(subject)
  const imported = now()
  const key = await loaded.key()
  const ready = now()
  if (loaded.proof) check(await loaded.proof(key, REQUEST))
  return { import: imported - begin, key: ready - imported, ready: ready - begin, proof: now() - ready }
}

/** Each subject loaded once, with a key, and warm. */
export async function prepare(subjects) {
  const prepared = {}
  for (const [name, subject] of Object.entries(subjects)) {
    const loaded = await load(subject)
    prepared[name] = { ...loaded, current: await loaded.key() }
    if (loaded.proof) await repeat(300, () => loaded.proof(prepared[name].current, REQUEST))
    if (loaded.sign) await repeat(300, () => loaded.sign(prepared[name].current, MESSAGE))
  }
  globalThis.prepared = prepared
}

/**
 * One round: calls per second of each of these subjects, one call after the other. They take turns in short slices, so that
 * what else the machine does meanwhile meets all of them alike.
 */
export async function round(measure, names, { slice, slices }) {
  const totals = Object.fromEntries(names.map((name) => [name, { count: 0, time: 0 }]))
  for (let i = 0; i < slices; i++) {
    for (const name of names) {
      const { current, proof, sign } = globalThis.prepared[name]
      const call = measure === 'proof' ? () => proof(current, REQUEST) : () => sign(current, MESSAGE)
      if (measure === 'proof') check(await call())
      const { count, time } = await repeat(slice, call)
      totals[name].count += count
      totals[name].time += time
    }
  }
  return Object.fromEntries(names.map((name) => [name, (totals[name].count * 1000) / totals[name].time]))
}

/** Milliseconds for a key, over a fixed number of them: this project's SDK sends a request with each. */
export async function keys(name) {
  const { key } = globalThis.prepared[name]
  const COUNT = 8
  const begin = now()
  for (let i = 0; i < COUNT; i++) await key()
  return (now() - begin) / COUNT
}

/** Microseconds for `fetchToken` with a token in the cache. */
export async function cached(name, api, calls) {
  const { Approov } = globalThis.prepared[name]
  const begin = now()
  for (let i = 0; i < calls; i++) await Approov.fetchToken(api, {})
  return ((now() - begin) * 1000) / calls
}

async function repeat(duration, call) {
  let count = 0
  let time
  const begin = now()
  do {
    for (let i = 0; i < 4; i++) await call()
    count += 4
    time = now() - begin
  } while (time < duration)
  return { count, time }
}

/** A proof has three parts and says what it is; a subject that makes none would win every race. */
function check(proof) {
  const parts = String(proof).split('.')
  const claims = JSON.parse(atob(parts[1].replace(/-/g, '+').replace(/_/g, '/')))
  if (parts.length !== 3 || !claims.ath || !claims.nonce || claims.htm !== REQUEST.method)
    throw new Error(`no proof: ${proof}`)
}
