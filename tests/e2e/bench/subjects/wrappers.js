// What wraps fetch with a token and a proof: ours, Auth0's and atproto's, each before the same function that responds at once.
import { WebcryptoKey } from '@atproto/jwk-webcrypto'
import { Auth0Client } from '@auth0/auth0-spa-js'
// The package does not export this file by its name.
import { dpopFetchWrapper } from '../peers/node_modules/@atproto/oauth-client/dist/fetch-dpop.js'

const ORIGIN = 'https://api.example.com'
const URL = `${ORIGIN}/shapes?size=2`

/** The wrappers, each with its token cached and its key made. */
export async function load({ file, session, result }) {
  const { Approov } = await import(file)
  const respond = async () => new Response('{}', { headers: { 'content-type': 'application/json' } })
  const apiFetch = Approov.createFetch({
    origins: [ORIGIN],
    api: 'localhost',
    session,
    renew: () => result,
    fetch: respond,
  })
  const token = (await apiFetch.headers('GET', URL))['Approov-Token']

  const client = new Auth0Client({ domain: 'tenant.example.com', clientId: 'client', useDpop: true })
  const getAccessToken = async () => ({ access_token: token, token_type: 'DPoP' })
  const auth0 = client.createFetcher({ dpopNonceId: 'api', getAccessToken, fetch: respond })

  const nonces = new Map()
  const atproto = dpopFetchWrapper({
    key: await WebcryptoKey.generate(['ES256']),
    supportedAlgs: ['ES256'],
    isAuthServer: false,
    nonces: { get: async (origin) => nonces.get(origin), set: async (origin, nonce) => void nonces.set(origin, nonce) },
    fetch: respond,
  })
  return {
    bare: () => respond(new Request(URL)),
    ours: () => apiFetch(URL),
    auth0: () => auth0.fetchWithAuth(URL),
    atproto: () => atproto(URL, { headers: { Authorization: `DPoP ${token}` } }),
  }
}
