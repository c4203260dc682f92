import { Engine, isSameUrl } from '#engine'

export { isSameUrl }

const MAX_KEYS = 65_536
const FETCH_TIMEOUT = 5000

/** Words of options are snake_case in the engine, which Python shares. */
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const camel = (text) => text.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())
const POLICIES = ['proof', 'message', 'query', 'nonce', 'serverNonces']

function engineOptions(options) {
  const named = Object.entries(options).filter(([, value]) => value !== undefined)
  return Object.fromEntries(
    named.map(([name, value]) => {
      if (name === 'cors') return [name, engineOptions(value)]
      return [snake(name), POLICIES.includes(name) && typeof value === 'string' ? snake(value) : value]
    }),
  )
}

/** Where used proofs are remembered: Redis, by a client that the application made (ioredis, or redis). */
export function redisStore(client, { prefix = 'approov:replay:' } = {}) {
  const send =
    typeof client?.call === 'function'
      ? (words) => client.call(...words)
      : typeof client?.sendCommand === 'function'
        ? (words) => client.sendCommand(words)
        : null
  if (!send) throw new TypeError('redisStore needs a client of ioredis or redis')
  const bytes = (word) => globalThis.Buffer?.from(word.buffer, word.byteOffset, word.byteLength) ?? word
  return {
    prefix,
    async send(command) {
      // The script and its numbers are text, which each client takes; the key of a proof is bytes.
      const text = new TextDecoder('utf-8', { fatal: true })
      const words = command.map((word) => {
        try {
          return text.decode(word)
        } catch {
          return bytes(word)
        }
      })
      const response = await send(words)
      if (!Number.isSafeInteger(response)) throw new Error('Redis did not respond with an integer')
      return response
    },
  }
}

/** Where used proofs are remembered: this process. @param {{capacity?: number}} [options] */
export function memoryStore({ capacity } = {}) {
  return { capacity }
}

/** Programs that are started for a few requests and ended, or run in many places at once, remember nothing. */
function forgetsMemory() {
  return (
    globalThis.navigator?.userAgent === 'Cloudflare-Workers' ||
    Boolean(globalThis.process?.env?.AWS_LAMBDA_FUNCTION_NAME) ||
    Boolean(globalThis.process?.env?.VERCEL)
  )
}

async function fetchKeysByHttp(url) {
  const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(FETCH_TIMEOUT) })
  if (response.status !== 200) throw new Error(`status ${response.status}`)
  const text = await response.text()
  if (text.length > MAX_KEYS) throw new Error(`more than ${MAX_KEYS} bytes`)
  return text
}

export function createVerifier(options) {
  return options instanceof Verifier ? options : new Verifier(options)
}

export class Verifier {
  #engine
  #store
  #clock
  #fetchKeys
  #fetching = null
  #bodyLimit
  #onRefused

  constructor(options) {
    const {
      store,
      clock = Date.now,
      fetchKeys = fetchKeysByHttp,
      bodyLimit = 1 << 20,
      monitor = false,
      onRefused,
      ...rest
    } = options
    if (!store && forgetsMemory()) {
      throw new TypeError(
        'approov-verify: memory protects nothing from replays where instances come and go; give store: redisStore(client), or memoryStore() if you accept that',
      )
    }
    if (typeof store?.send === 'function') rest.redisPrefix = store.prefix
    else if (store?.capacity !== undefined) rest.capacity = store.capacity
    try {
      this.#engine = new Engine(JSON.stringify(engineOptions(rest)))
    } catch (error) {
      throw new TypeError(`approov-verify: ${camel(error.message)}`)
    }
    this.#store = store
    this.#clock = clock
    this.#fetchKeys = fetchKeys
    this.#bodyLimit = bodyLimit
    this.monitor = monitor
    this.#onRefused = onRefused
  }

  get bodyLimit() {
    return this.#bodyLimit
  }

  /**
   * Checks a request of the Fetch API. Its body can still be read afterwards.
   *
   * @param {Request} request
   * @param {{binding?: string}} [options]
   */
  verify(request, { binding } = {}) {
    const { pathname, search } = new URL(request.url)
    // What there was of a query cannot be seen in `search` when it was empty, and makes no difference.
    return this.check({
      method: request.method,
      target: pathname + search,
      headers: [...request.headers],
      binding,
      readBody: () => readStream(request.clone().body, this.#bodyLimit),
    })
  }

  /**
   * Checks a request that is described: for servers without Request objects.
   *
   * @param {import('./index.js').RequestDescription} description
   */
  async check({ method, url, target, headers, binding, readBody }) {
    const now = this.#clock()
    const request = JSON.stringify({ method, url, target, headers, binding: binding ?? null })
    let check = this.#engine.start(request, now, false)
    try {
      if (check.step === 'keys') {
        await this.#refreshKeys(check.text, now)
        check.free()
        check = this.#engine.start(request, now, true)
      }
      for (;;) {
        switch (check.step) {
          case 'done':
            return this.#verdict(JSON.parse(check.text))
          case 'body': {
            const body = await readBody?.()
            if (body === null || body === undefined) {
              const [status, code, detail] =
                body === null
                  ? [413, 'body_too_large', 'the body is too long to be checked']
                  : [500, 'body_unread', 'the request cannot be checked at the moment']
              return this.#verdict(JSON.parse(this.#engine.refusal(check, status, code, detail)))
            }
            this.#engine.body(check, body)
            break
          }
          case 'command':
            await this.#command(check)
            break
          default:
            throw new Error(`approov-verify: unknown step ${check.step}`)
        }
      }
    } finally {
      check.free()
    }
  }

  /**
   * A handler of the Fetch API that is called for good requests only: `(request, verdict, ...rest) => Response`. For Workers,
   * Deno, Bun, route handlers of Next.
   */
  protect(handler) {
    return async (request, ...rest) => {
      const verdict = await this.verify(request)
      if (!this.admits(verdict)) return refusal(verdict)
      const response = await handler(request, verdict, ...rest)
      const extended = new Response(response.body, response)
      addHeaders(verdict, (name, value) => extended.headers.append(name, value))
      return extended
    }
  }

  /** Whether the application gets to see a request with this verdict. A body that is too long was not read to its end. */
  admits(verdict) {
    return verdict.ok || (this.monitor && verdict.status !== 204 && verdict.status !== 413)
  }

  #verdict(verdict) {
    if (verdict.code !== 'preflight' && (!verdict.ok || verdict.wouldFail)) this.#onRefused?.(verdict)
    return verdict
  }

  async #command(check) {
    let response, failure
    try {
      response = await this.#store.send(check.command)
    } catch (error) {
      failure = String(error?.message ?? error)
    }
    this.#engine.reply(check, response, failure)
  }

  /** One request for the keys at a time, for which all wait who need them. */
  async #refreshKeys(url, now) {
    this.#fetching ??= (async () => {
      let keys, failure
      try {
        keys = await this.#fetchKeys(url)
      } catch (error) {
        failure = String(error?.message ?? error)
      }
      const problem = this.#engine.keys(keys, failure, now)
      if (problem) this.#onRefused?.({ ok: false, status: 503, code: 'keys_unavailable', log: problem })
    })().finally(() => (this.#fetching = null))
    await this.#fetching
  }
}

/** The response to a request that is not let pass. */
export function refusal({ status, headers, body }) {
  return new Response(status === 204 ? null : body, { status, headers })
}

const LISTS = ['vary', 'access-control-expose-headers']

/** Adds what every response has to have: CORS, the current nonce. `append` for headers that are lists, `set` for the others. */
export function addHeaders(verdict, append, set = append) {
  for (const [name, value] of Object.entries(verdict.headers)) {
    // What a refusal says of its own body is not for the response of an application that is only monitored.
    if (!verdict.ok && ['Content-Type', 'Cache-Control', 'Retry-After'].includes(name)) continue
    ;(LISTS.includes(name.toLowerCase()) ? append : set)(name, value)
  }
}

/** All bytes of a stream; null when there are more than the limit. */
async function readStream(stream, limit) {
  if (!stream) return new Uint8Array(0)
  const chunks = []
  let length = 0
  const reader = stream.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.byteLength
    if (length > limit) {
      reader.cancel().catch(() => {})
      return null
    }
    chunks.push(value)
  }
  const bytes = new Uint8Array(length)
  let position = 0
  for (const chunk of chunks) {
    bytes.set(chunk, position)
    position += chunk.byteLength
  }
  return bytes
}
