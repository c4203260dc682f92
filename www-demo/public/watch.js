// Sees every request of the page: the steps light up by what is really sent and answered. It is evaluated before the SDK, which
// keeps the `fetch` that it finds.

const send = globalThis.fetch.bind(globalThis)
const listeners = new Set()

/**
 * @typedef {{method: string, url: string, headers: Record<string, string>, body: string,
 *   response?: {status: number, headers: Record<string, string>, body: string}}} Exchange
 */

/**
 * Tells of requests to other origins until the returned function is called: first without `response`, then with it.
 *
 * @param {(exchange: Exchange) => void} listener
 */
export function watch(listener) {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

const tell = (exchange) => listeners.forEach((listener) => listener(exchange))

globalThis.fetch = async (input, init) => {
  const request = new Request(input, init)
  if (new URL(request.url).origin === location.origin) return send(request)
  const exchange = {
    method: request.method,
    url: request.url,
    headers: Object.fromEntries(request.headers),
    body: await request.clone().text(),
  }
  tell(exchange)
  const response = await send(request)
  const { status, headers } = response
  tell({
    ...exchange,
    response: { status, headers: Object.fromEntries(headers), body: await response.clone().text() },
  })
  return response
}
