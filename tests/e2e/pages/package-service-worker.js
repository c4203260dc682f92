// A service worker that gets a token and responds with it.
import { Approov } from '/package/index.js'

addEventListener('install', () => skipWaiting())

addEventListener('message', (event) => {
  const { visit } = event.data
  const [port] = event.ports
  const token = Approov.initializeSession(visit.session).then(() => Approov.fetchToken(visit.api, visit.result))
  event.waitUntil(
    token.then(
      (token) => port.postMessage({ token }),
      (error) => port.postMessage({ error: `${error.name}: ${error.message}` }),
    ),
  )
})
