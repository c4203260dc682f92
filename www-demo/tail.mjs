// The last lines of both logs, for the demo page. Loopback only, like the site; lines of the logs have no secrets.

/** What the page gets of a line. */
const SHOWN = ['time', 'id', 'method', 'path', 'status', 'ms', 'outcome', 'codes', 'checks', 'code', 'detail']
const MAX_LINES = 200
/** How long a request waits for the next line, in milliseconds. */
const WAIT_TIMEOUT = 25_000

/** Keeps the lines; `after` waits for new ones. */
export function makeTail() {
  const lines = []
  const waiting = new Set()
  let last = 0
  return {
    /** @param {string} source whose log @param {object} entry */
    add(source, entry) {
      const shown = SHOWN.filter((name) => Object.hasOwn(entry, name)).map((name) => [name, entry[name]])
      lines.push({ number: (last += 1), source, entry: Object.fromEntries(shown) })
      if (lines.length > MAX_LINES) lines.shift()
      for (const wake of waiting) wake()
    },
    /** The lines after this one, as soon as there are any; from now on, where no number is given. @param {number} number */
    async after(number) {
      if (!(number > 0)) return { last, lines: [] }
      if (number >= last) {
        await new Promise((resolve) => {
          const timer = setTimeout(wake, WAIT_TIMEOUT).unref()
          function wake() {
            clearTimeout(timer)
            waiting.delete(wake)
            resolve(undefined)
          }
          waiting.add(wake)
        })
      }
      return { last, lines: lines.filter((line) => line.number > number) }
    },
  }
}
