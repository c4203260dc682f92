// The logs of service and API, as the demo's server passes them on.

/** @typedef {{number: number, source: 'service' | 'api', entry: Record<string, any>}} Line */

/** @type {Line[]} */
const lines = []
const listeners = new Set()

/** How long a line may take that a response has announced, in milliseconds. */
const LINE_TIMEOUT = 5000

/** Follows the logs as long as the page is open. */
export async function follow() {
  let { last } = await read(0)
  last = Math.max(last, 1)
  for (;;) {
    const news = await read(last)
    last = Math.max(last, news.last)
    lines.push(...news.lines)
    for (const listener of listeners) listener()
  }
}

async function read(after) {
  const response = await fetch(`log.json?after=${after}`)
  return response.json()
}

/** Where the log is now; for {@link lineOf}. */
export const position = () => lines.length

/**
 * The line of a log about a request that has just been responded to; undefined if none came.
 *
 * @param {'service' | 'api'} source @param {number} since
 * @param {{method: string, url: string, response?: {status: number}}} exchange @returns {Promise<Line | undefined>}
 */
export function lineOf(source, since, { method, url, response }) {
  const { pathname } = new URL(url)
  const isIt = ({ source: whose, entry }) =>
    whose === source && entry.method === method && entry.path === pathname && entry.status === response?.status
  const find = () => lines.slice(since).findLast(isIt)
  return new Promise((resolve) => {
    const timer = setTimeout(end, LINE_TIMEOUT)
    function end() {
      clearTimeout(timer)
      listeners.delete(look)
      resolve(find())
    }
    function look() {
      if (find()) end()
    }
    listeners.add(look)
    look()
  })
}
