// The SDK outside a page: the same script as a worker and as a service worker. One message says what to do.
import { Approov } from '/approov.js'

/** A session, its first token with a result that the page got, and a call of the protected API. */
async function flow({ options, api, apiUrl, result }) {
  await Approov.initializeSession(options)
  const token = await Approov.fetchToken(api, result)
  const proof = await Approov.getDPoPToken('GET', apiUrl, crypto.randomUUID(), token)
  const response = await fetch(apiUrl, { headers: { 'Approov-Token': token, Dpop: proof } })
  const expiries = await Approov.getExpiries()
  return { scope: globalThis.constructor.name, status: response.status, body: await response.json(), expiries }
}

addEventListener('message', (event) => {
  const port = event.ports[0]
  const done = flow(event.data).then(
    (value) => port.postMessage({ value }),
    (error) => port.postMessage({ error: `${error.name}: ${error.message}` }),
  )
  event.waitUntil?.(done)
})
