// One verification of token and proof: the package, and the same checks by hand with jose. Prints the rounds as JSON, in µs.
import { createHash } from 'node:crypto'
import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose'
import { createVerifier } from 'approov-verify'
import { OPTIONS, PUBLIC_URL, SECRET, session } from './support.mjs'

const [ROUNDS, REQUESTS] = [7, 150]
const { token, headers } = await session()
const requests = async () =>
  Promise.all(Array.from({ length: REQUESTS }, async () => Object.entries(await headers('POST', '/order'))))

const verifier = createVerifier(OPTIONS)
const used = new Set()
const hash = createHash('sha256').update(token).digest('base64url')

/** What people write: no limits on what is remembered, URLs compared as text. */
async function byHand(fields) {
  const { 'Approov-Token': text, DPoP } = Object.fromEntries(fields)
  const { payload: claims } = await jwtVerify(text, SECRET, { algorithms: ['HS256'] })
  const { payload: proof, protectedHeader } = await jwtVerify(DPoP, EmbeddedJWK, {
    algorithms: ['ES256'],
    typ: 'dpop+jwt',
    maxTokenAge: 60,
  })
  const good =
    claims.cnf.jkt === (await calculateJwkThumbprint(protectedHeader.jwk)) &&
    proof.htm === 'POST' &&
    proof.htu === `${PUBLIC_URL}/order` &&
    proof.ath === hash &&
    !used.has(proof.jti)
  used.add(proof.jti)
  return good
}

const subjects = {
  'ours (npm)': async (fields) => (await verifier.check({ method: 'POST', target: '/order', headers: fields })).ok,
  'jose by hand (Node)': byHand,
}
const rounds = Object.fromEntries(Object.keys(subjects).map((name) => [name, []]))
for (let round = -1; round < ROUNDS; round++) {
  for (const [name, check] of Object.entries(subjects)) {
    const given = await requests()
    const begin = performance.now()
    for (const fields of given) if (!(await check(fields))) throw new Error(`${name} refused a good request`)
    // The first round warms up.
    if (round >= 0) rounds[name].push(((performance.now() - begin) * 1000) / REQUESTS)
  }
}
console.log(JSON.stringify(rounds))
