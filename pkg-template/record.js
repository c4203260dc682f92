// The record that lets a session outlive its page (`persistence: 'browser'`): one per site key in the browser's database, with the
// private key as an object that cannot be exported. Whatever fails here is as if there were no record.
import { builtIns, isA } from './built-ins.js'

const NAME = 'approov-web-sdk'
const STORE = 'sessions'

/** A database that has not responded for this long, in milliseconds, is not waited for: some never do. */
const PATIENCE = 2_000

/** The browser's functions report what came of them by events. */
const outcome = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
    request.onblocked = () => reject(new Error('blocked'))
  })

/** Works on the database, which is closed after it, so that nobody waits for this page. */
async function inDatabase(mode, work) {
  const opening = globalThis.indexedDB.open(NAME, 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE)
  const database = await outcome(opening)
  try {
    const transaction = database.transaction(STORE, mode)
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve
      transaction.onabort = transaction.onerror = () => reject(transaction.error)
    })
    const result = work(transaction.objectStore(STORE))
    await done
    return result.result
  } finally {
    database.close()
  }
}

/** Whether a key is one that this SDK makes: others could be taken away. */
function isSessionKey(key) {
  return (
    isA(key, 'CryptoKey') &&
    !builtIns.isExtractable(key) &&
    key.type === 'private' &&
    key.algorithm.name === 'ECDSA' &&
    key.algorithm.namedCurve === 'P-256' &&
    String(key.usages) === 'sign'
  )
}

/**
 * @param {(what: 'session' | 'end' | 'shown') => void} hear is told what another page of the origin has done with the same account,
 *   and that this one was out of sight and could not hear
 * @param {(message: string) => void} log
 */
export function makeRecord(hear, log) {
  /** The site key whose record is this page's; none while nothing is kept. */
  let siteKey
  /** The site key again, if its record is known to have been there. */
  let isThere
  let channel
  let isWatching = false
  /** One write after the other. @type {Promise<unknown>} */
  let writing = Promise.resolve()

  const tolerant = async (what, work) => {
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no response within ${PATIENCE} ms`)), PATIENCE)
    })
    try {
      return await Promise.race([work(), late])
    } catch (error) {
      hasFailed(what, error)
    } finally {
      clearTimeout(timer)
    }
  }
  const hasFailed = (what, error) => log(`${what} failed, the session goes on in this page alone: ${error}`)
  const inTurn = (what, work) => {
    writing = writing.then(() => tolerant(what, work))
    return writing
  }

  function listen() {
    if (!isWatching) {
      isWatching = true
      // An open channel would keep the page out of the back/forward cache.
      globalThis.addEventListener?.('pagehide', close)
      globalThis.addEventListener?.('pageshow', ({ persisted }) => {
        if (siteKey === undefined || !persisted) return
        listen()
        hear('shown')
      })
    }
    if (channel || typeof BroadcastChannel !== 'function') return
    try {
      channel = new BroadcastChannel(NAME)
    } catch (error) {
      // Firefox, in a frame or with settings that keep nothing.
      return hasFailed('listening to other pages', error)
    }
    channel.onmessage = ({ data }) => {
      if (siteKey !== undefined && (data?.siteKey ?? siteKey) === siteKey) hear(data?.what)
    }
    // Nothing waits for it in Node.
    channel.unref?.()
  }

  function close() {
    channel?.close()
    channel = undefined
  }

  const tell = (siteKey, what) => tolerant('telling other pages', async () => channel?.postMessage({ siteKey, what }))

  return {
    /**
     * The record of an account, from now on this page's; nothing if there is none that can be used, and `null` if there was one
     * which is there no more.
     */
    read(key = siteKey) {
      siteKey = key
      const wasThere = isThere === key
      return tolerant('reading the kept session', async () => {
        listen()
        await writing
        const record = await inDatabase('readonly', (store) => store.get(key))
        if (siteKey !== key) return
        isThere = record && key
        if (record && isSessionKey(record.key)) return record
        if (!record && wasThere) return null
      })
    },
    /** Keeps a record, from now on this page's. `isNew`: other pages take it over. */
    async write(record, isNew) {
      // The second line of an account; the page may have begun with another, or with one that it did not keep.
      const key = (siteKey = record.account.split('\n')[1])
      listen()
      await inTurn('keeping the session', async () => {
        await inDatabase('readwrite', (store) => store.put({ ...record }, key))
        if (siteKey === key) isThere = key
      })
      if (isNew) await tell(key, 'session')
    },
    /** Removes the record, and ends the session in other pages. A page that has not begun one does not know which: all of them. */
    async remove() {
      const key = siteKey
      // At once: a session may begin before this has ended, and is kept.
      siteKey = isThere = undefined
      await inTurn('removing the kept session', async () => {
        if (key !== undefined) await inDatabase('readwrite', (store) => store.delete(key))
        else if (globalThis.indexedDB) await outcome(globalThis.indexedDB.deleteDatabase(NAME))
      })
      if (key === undefined) listen()
      await tell(key, 'end')
      if (siteKey === undefined) close()
    },
    /** Keeps nothing any more. */
    forget() {
      siteKey = isThere = undefined
      close()
    },
  }
}
