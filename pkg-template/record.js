// The record that lets a session outlive its page (`persistence: 'browser'`): one per site key in the browser's database, with the
// private key as an object that cannot be exported. Whatever fails here is as if there were no record.
import { builtIns, isA } from './built-ins.js'

const NAME = 'approov-web-sdk'
const STORE = 'sessions'

/** How long the browser may take to open its database, in milliseconds. Some never respond (WebKit after an update). */
const PATIENCE = 2000

/** The browser's functions report what came of them by events. */
const outcome = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
    request.onblocked = () => reject(new Error('blocked'))
  })

/** The promise, unless it takes too long. @param {Promise<any>} promise @returns {Promise<any>} */
function inTime(promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('the database does not respond')), PATIENCE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Works on the database, which is closed after it, so that nobody waits for this page. */
async function inDatabase(mode, work) {
  const opening = globalThis.indexedDB.open(NAME, 1)
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE)
  const database = await inTime(outcome(opening))
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
 * @param {(what: 'session' | 'end') => void} hear is told what another page of the origin has done with the same account
 * @param {(message: string) => void} log
 */
export function makeRecord(hear, log) {
  /** The site key whose record is this page's; none while nothing is kept. */
  let siteKey
  let channel
  let isWatching = false
  /** One write after the other. @type {Promise<unknown>} */
  let writing = Promise.resolve()

  const tolerant = async (what, work) => {
    try {
      return await work()
    } catch (error) {
      log(`${what} failed, the session goes on in this page alone: ${error}`)
    }
  }
  const inTurn = (what, work) => {
    writing = writing.then(() => tolerant(what, work))
    return writing
  }

  function listen() {
    if (channel || typeof BroadcastChannel !== 'function') return
    try {
      channel = new BroadcastChannel(NAME)
    } catch (error) {
      log(`telling other pages failed, the session goes on in this page alone: ${error}`)
      return
    }
    channel.onmessage = ({ data }) => {
      if (siteKey !== undefined && (data?.siteKey ?? siteKey) === siteKey) hear(data.what)
    }
    // Nothing waits for it in Node.
    channel.unref?.()
    if (isWatching) return
    isWatching = true
    // An open channel would keep the page out of the back/forward cache.
    globalThis.addEventListener?.('pagehide', close)
    globalThis.addEventListener?.('pageshow', ({ persisted }) => {
      if (siteKey === undefined || !persisted) return
      listen()
      hear('session')
    })
  }

  function close() {
    channel?.close()
    channel = undefined
  }

  const tell = (what, key = siteKey) =>
    tolerant('telling other pages', async () => channel?.postMessage({ siteKey: key, what }))

  return {
    /** The record of an account, from now on this page's; nothing if there is none that can be used. */
    read(key = siteKey) {
      siteKey = key
      return tolerant('reading the kept session', async () => {
        listen()
        await writing
        const record = await inDatabase('readonly', (store) => store.get(siteKey))
        if (record && isSessionKey(record.key)) return record
      })
    },
    /** Keeps a record. `isNew`: other pages take it over. */
    async write(record, isNew, configured) {
      // Sessions before may have been of another account, or kept nothing. The first one's is the key that was read.
      const key = configured ?? siteKey
      if (key === undefined) return
      siteKey = key
      listen()
      await inTurn('keeping the session', () => inDatabase('readwrite', (store) => store.put({ ...record }, key)))
      if (isNew) await tell('session')
    },
    /** Removes the record, and ends the session in other pages. A page that has not begun one does not know which: all of them. */
    async remove() {
      const key = siteKey
      // A session that begins meanwhile has a record of its own.
      siteKey = undefined
      await inTurn('removing the kept session', async () => {
        if (key !== undefined) await inDatabase('readwrite', (store) => store.delete(key))
        else if (globalThis.indexedDB) await inTime(outcome(globalThis.indexedDB.deleteDatabase(NAME)))
      })
      if (key === undefined) listen()
      await tell('end', key)
      if (siteKey === undefined) close()
    },
    /** Keeps nothing any more. */
    forget() {
      siteKey = undefined
      close()
    },
  }
}
