// The SDK's events: listeners, what late ones are told, and the one timer that watches the end of a session.
import { ownProperty } from './built-ins.js'
import { invalid, readable } from './errors.js'

const TYPES = ['session', 'sessionexpiring', 'sessionend', 'tokenrefresh', 'error', 'log']

/** A listener for the end of a session is called so long before it unless it asks for another time, in milliseconds. */
const LEAD = 300_000

/** Browsers take longer delays for none. */
const MAX_DELAY = 2 ** 31 - 1

/**
 * @param {(isCertain: boolean) => number | undefined} timeLeft how many milliseconds the session has left, by its own clocks: at most,
 *   or at least, since a computer may have slept; nothing before its first token
 */
export function makeEvents(timeLeft) {
  /** @type {Set<{ type: string, listener: (event: any) => void, lead: number, told?: unknown }>} */
  const listeners = new Set()
  /** The event of the session there is. @type {any} */
  let session
  /** The event of how the last one ended, until the next. @type {any} */
  let end
  let timer
  let isWatching = false

  /** Never inside a call of the SDK. */
  function call(entry, event) {
    queueMicrotask(() => {
      if (!listeners.has(entry)) return
      try {
        entry.listener(event)
      } catch (error) {
        if (typeof reportError === 'function') reportError(error)
        else setTimeout(() => Promise.reject(error))
      }
    })
  }

  function emit(type, members) {
    const event = Object.freeze({ type, ...members })
    for (const entry of listeners) if (entry.type === type) call(entry, event)
    return event
  }

  /** Tells whose time has come that the session ends soon, and sets the timer for the next moment of interest. */
  function watch() {
    clearTimeout(timer)
    timer = undefined
    const watching = [...listeners].filter(({ type }) => type === 'sessionexpiring' || type === 'sessionend')
    if (!session || !watching.length) return
    // If it is over, this tells.
    const end = timeLeft(true)
    const left = timeLeft(false)
    if (!session || end === undefined) return
    let next = end
    for (const entry of watching) {
      if (entry.type !== 'sessionexpiring' || entry.told === session) continue
      const wait = left - entry.lead
      if (wait > 0) next = Math.min(next, wait)
      else if (end > 0 && !globalThis.document?.hidden) {
        entry.told = session
        call(entry, Object.freeze({ type: 'sessionexpiring', expires: session.expires }))
      }
    }
    timer = setTimeout(watch, Math.min(Math.max(next, 1), MAX_DELAY))
    // Nothing waits for it in Node.
    timer.unref?.()
  }

  /** A timer stands still while the computer sleeps, and waits in a page that is hidden. */
  function watchWakeUps() {
    if (isWatching) return
    isWatching = true
    globalThis.document?.addEventListener('visibilitychange', watch)
    for (const name of ['pageshow', 'online']) globalThis.addEventListener?.(name, watch)
  }

  return {
    on(type, listener, options) {
      if (!TYPES.includes(type)) throw invalid(`"type" must be one of ${TYPES.join(', ')}, got ${String(type)}`)
      if (typeof listener !== 'function') throw invalid('"listener" must be a function')
      const option = (name) => readable(() => ownProperty(options, name) ?? undefined, `"${name}" could not be read`)
      const lead = option('lead') ?? LEAD
      if (typeof lead !== 'number' || !(lead >= 0)) throw invalid('"lead" must be a number of milliseconds, 0 or more')
      const signal = option('signal')
      if (signal !== undefined && typeof signal.addEventListener !== 'function') {
        throw invalid('"signal" must be an AbortSignal')
      }
      const entry = { type, listener, lead }
      const remove = () => {
        listeners.delete(entry)
        signal?.removeEventListener?.('abort', remove)
        watch()
      }
      if (signal?.aborted) return remove
      signal?.addEventListener('abort', remove, { once: true })
      listeners.add(entry)
      watchWakeUps()
      // What has happened before is told, too.
      if (type === 'session' && session) call(entry, session)
      if (type === 'sessionend' && end) call(entry, end)
      watch()
      return remove
    },
    emit,
    /** The session has its first token, or its end has moved. */
    begin(expires, isNew) {
      const event = { type: 'session', expires }
      if (isNew) {
        end = undefined
        session = emit('session', { expires })
      } else if (session) {
        // Who was told of the other end is told of this one.
        session = Object.freeze(event)
      }
      watch()
    },
    /** The session is over, if there was one. */
    end(code) {
      if (!session) return
      session = undefined
      end = emit('sessionend', { code })
      watch()
    },
  }
}
