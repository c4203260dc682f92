// A page's time in the hands of a test: the clocks stand still until the test moves them, and a timer fires when the moved clock
// reaches it. To be installed before the SDK is imported.

/**
 * Puts the clock in place of the page's own, as `globalThis.clock`. Timers without a delay stay the page's: they wait for a turn of the
 * event loop, not for time.
 *
 * @param {number} start what `Date.now()` says from here on
 * @param {number} foreign the delay of timers that are not the page's but its driver's
 */
export function installClock(start, foreign) {
  const { setTimeout: realSetTimeout, clearTimeout: realClearTimeout } = globalThis
  const origin = Math.floor(performance.now())
  let wall = 0
  let monotonic = 0
  const timers = new Map()
  let watchers = []
  /** Far from the numbers that the page's own timers get. */
  let lastId = 1e12

  Date.now = () => start + wall
  performance.now = () => origin + monotonic
  const setTimeout = (work, delay = 0, ...args) => {
    if (!(delay > 0) || delay === foreign) return realSetTimeout(work, delay, ...args)
    lastId += 1
    timers.set(lastId, { delay, due: monotonic + delay, run: () => work(...args) })
    for (const watcher of watchers.splice(0)) watcher()
    return lastId
  }
  // Node's types, which the tests have too, want more of it than pages do.
  globalThis.setTimeout = /** @type {any} */ (setTimeout)
  globalThis.clearTimeout = (id) => {
    if (!timers.delete(id)) realClearTimeout(id)
  }

  /** Lets everything happen that is due in this turn of the event loop. */
  const turn = () => new Promise((resolve) => realSetTimeout(resolve))

  globalThis.clock = {
    /** Moves both clocks on, and lets every timer fire at its moment. */
    async advance(milliseconds) {
      const end = monotonic + milliseconds
      const move = (to) => {
        wall += to - monotonic
        monotonic = to
      }
      for (;;) {
        await turn()
        const [next] = [...timers].filter(([, { due }]) => due <= end).sort(([, one], [, other]) => one.due - other.due)
        if (!next) break
        const [id, { due, run }] = next
        timers.delete(id)
        move(Math.max(due, monotonic))
        run()
      }
      move(end)
      await turn()
    },
    /** What a computer finds that slept: a later wall clock, and a monotonic one that went on or stood still. No timer fires. */
    sleep(milliseconds, { isTicking }) {
      wall += milliseconds
      if (isTicking) monotonic += milliseconds
    },
    /** The delays of the timers that have not fired yet. */
    timers: () => [...timers.values()].map(({ delay }) => delay),
    /** Waits until a timer is set whose delay is within these bounds, and gives the delay. */
    async timer(least, most = least) {
      for (;;) {
        const found = clock.timers().find((delay) => delay >= least && delay <= most)
        if (found !== undefined) return found
        await new Promise((resolve) => watchers.push(resolve))
      }
    },
  }
}
