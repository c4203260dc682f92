// What a link shares: the fragment of the address, `#check=turnstile&tab=http&attack=replay`.

const DEFAULTS = { check: 'altcha', outcome: 'pass', click: 'yes', tab: 'claims', run: '', attack: '' }

/** The shared state, with defaults for what the address leaves out. @returns {typeof DEFAULTS} */
export function readState() {
  const given = new URLSearchParams(location.hash.slice(1))
  const entries = Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value])
  return Object.fromEntries(entries)
}

/** Puts the state into the address, without what is as by default, and returns that address. @param {Partial<typeof DEFAULTS>} changes */
export function writeState(changes) {
  const state = { ...readState(), ...changes }
  const shared = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name])
  const url = new URL(location.href)
  url.hash = new URLSearchParams(shared).toString()
  history.replaceState(null, '', url)
  return url.href
}
