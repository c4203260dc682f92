// Clients of a protected API, for pages: npm's dpop, atproto's fetch, and createFetch of this project. A test bundles this file.
import { WebcryptoKey } from '@atproto/jwk-webcrypto'
import { generateKeyPair, generateProof } from 'dpop'

// The package does not export this file by its name.
import { dpopFetchWrapper } from '../node_modules/@atproto/oauth-client/dist/fetch-dpop.js'

const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replace(/\+/g, '-')
    .replace(/\//g, '_')
    .replace(/=+$/, '')
const hashOf = async (text) => base64url(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))

/** What a client sends goes through here: noted with its nonce and the status of its response, or kept instead of being sent. */
export class Wire {
  /** @type {{nonce: string, status: number, next: string}[]} */
  sent = []
  /** @type {Request | undefined} */
  kept
  isKeeping = false

  send = async (input, init) => {
    const request = new Request(input, init)
    if (this.isKeeping) {
      this.kept = request
      return new Response('{}')
    }
    const { nonce } = JSON.parse(atob(request.headers.get('DPoP').split('.')[1].replace(/-/g, '+').replace(/_/g, '/')))
    const response = await fetch(request)
    this.sent.push({ nonce, status: response.status, next: response.headers.get('DPoP-Nonce') })
    return response
  }
}

/** Whether a response demands a nonce, as far as the page can read that. */
const demandsNonce = (response) =>
  response.status === 401 && /^DPoP .*error="use_dpop_nonce"/.test(response.headers.get('WWW-Authenticate') ?? '')

/**
 * Each makes `{ jwk, fetch(token, url, init) }`, where `jwk` is what the token has to be bound to. `nonce` is what the client believes
 * to be the API's nonce. Without `jwk` the client gets its own token.
 *
 * @type {Record<string, (wire: Wire, options: {origin: string, nonce?: string, settings: any}) => Promise<any>>}
 */
export const CLIENTS = {
  /** dpop makes proofs; the nonces are up to its user, who does what RFC 9449 section 8.2 says. */
  async dpop(wire, { nonce }) {
    const keys = await generateKeyPair('ES256')
    const send = async (token, url, { body, headers, method }) => {
      const proof = await generateProof(keys, url, method, nonce, token, { msgs: await hashOf(body) })
      const added = { ...headers, 'Approov-Token': token, DPoP: proof }
      const response = await wire.send(url, { method, body, headers: added })
      nonce = response.headers.get('DPoP-Nonce') ?? nonce
      return response
    }
    return {
      jwk: await crypto.subtle.exportKey('jwk', keys.publicKey),
      async fetch(...call) {
        const before = nonce
        const response = await send(...call)
        return demandsNonce(response) && nonce !== before ? send(...call) : response
      },
    }
  },

  /** atproto's wrapper keeps the nonces; it knows nothing of bodies, so its key adds their hash. */
  async atproto(wire, { origin, nonce }) {
    const key = await WebcryptoKey.generate(['ES256'])
    const nonces = new Map(nonce ? [[origin, nonce]] : [])
    let msgs
    const covering = new Proxy(key, {
      get(target, name) {
        if (name === 'createJwt') return (header, claims) => target.createJwt(header, { ...claims, msgs })
        const value = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      },
    })
    const dpopFetch = dpopFetchWrapper({
      key: covering,
      supportedAlgs: ['ES256'],
      isAuthServer: false,
      nonces: {
        get: async (origin) => nonces.get(origin),
        set: async (origin, nonce) => void nonces.set(origin, nonce),
        del: async (origin) => void nonces.delete(origin),
      },
      fetch: wire.send,
    })
    return {
      jwk: key.bareJwk,
      async fetch(token, url, { headers, ...init }) {
        msgs = await hashOf(init.body)
        return dpopFetch(url, { ...init, headers: { ...headers, Authorization: `DPoP ${token}` } })
      },
    }
  },

  /** Begins with a nonce of its own making, and passes the service's own check. */
  async createFetch(wire, { origin, settings }) {
    const { Approov } = await import('/approov.js')
    const { approovHost, approovSiteKey, keys, api } = settings
    const session = { approovHost, approovSiteKey, ...keys.altcha }
    const apiFetch = Approov.createFetch({ origins: [origin], api, session, fetch: wire.send })
    return { fetch: (token, url, init) => apiFetch(url, init) }
  },
}
