// The attacks: each is sent to the API by this page, as a thief's script would send it. `Approov` is the victim's session, for proofs
// that were never used; `stolen` is what a thief has copied from the last request that the API accepted.
import { makeKey, sha256, signProof } from './encoding.js'

/** A proof of the session that the API has not seen, for the request that was stolen. */
const freshProof = async ({ Approov, stolen: { url, token, body } }) =>
  Approov.getDPoPToken('POST', url, crypto.randomUUID(), token, await sha256(body))

const post = (url, token, proof, body) =>
  fetch(url, {
    method: 'POST',
    headers: { 'Approov-Token': token, ...(proof && { DPoP: proof }), 'Content-Type': 'application/json' },
    body,
  })

/**
 * `took`: which of the victim's steps the thief has the fruit of.
 *
 * @type {Record<string, {title: string, story: string, took: string[], run: (context: any) => Promise<Response>}>}
 */
export const ATTACKS = {
  replay: {
    title: 'Replay this proof',
    story: 'The accepted request once more: same token, same proof, same body.',
    took: ['token', 'proof'],
    run: ({ stolen: { url, token, proof, body } }) => post(url, token, proof, body),
  },
  'other-url': {
    title: 'Other URL',
    story: 'A proof for /shapes that was never used, sent to /orders.',
    took: ['token', 'proof'],
    run: async (context) => {
      const { url, token, body } = context.stolen
      return post(new URL('/orders', url), token, await freshProof(context), body)
    },
  },
  'other-method': {
    title: 'Other method',
    story: 'A proof for POST that was never used, sent with GET.',
    took: ['token', 'proof'],
    run: async (context) => {
      const { url, token } = context.stolen
      return fetch(url, { headers: { 'Approov-Token': token, DPoP: await freshProof(context) } })
    },
  },
  'altered-body': {
    title: 'Altered body',
    story: 'A proof that was never used, with another body than was signed.',
    took: ['token', 'proof'],
    run: async (context) => {
      const { url, token } = context.stolen
      return post(url, token, await freshProof(context), '{"wants":"all the shapes"}')
    },
  },
  'other-key': {
    title: 'Stolen token, own key',
    story: 'The thief signs a perfect proof, with a key of their own.',
    took: ['token'],
    run: async ({ stolen: { url, token, body } }) => {
      const key = await makeKey()
      return post(url, token, await signProof(key, { method: 'POST', url, token, body }), body)
    },
  },
  'no-proof': {
    title: 'Token without proof',
    story: 'The stolen token alone, as with any bearer token.',
    took: ['token'],
    run: ({ stolen: { url, token, body } }) => post(url, token, undefined, body),
  },
  expired: {
    title: 'Expired token',
    story: 'The right key, but the token ended a minute ago (the demo made it).',
    took: ['token'],
    run: async ({ stolen: { url, body } }) => {
      const key = await makeKey()
      // The demo's server makes it, so that nobody waits two minutes.
      const { token } = await (await fetch(`expired-token.json?jkt=${key.jkt}`)).json()
      return post(url, token, await signProof(key, { method: 'POST', url, token, body }), body)
    },
  },
  'failed-check': {
    title: 'Failed check',
    story: 'A bot fails the check, and gets a token that looks like any other.',
    took: [],
    run: async ({ secondSdk, failingCheck, stolen: { url, body } }) => {
      const { Approov } = await secondSdk()
      const { session, api, pass } = failingCheck
      await Approov.initializeSession(session)
      const token = await Approov.fetchToken(api, await pass())
      const proof = await Approov.getDPoPToken('POST', url, crypto.randomUUID(), token, await sha256(body))
      return post(url, token, proof, body)
    },
  },
}
