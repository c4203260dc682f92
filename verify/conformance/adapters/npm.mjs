// The npm package as a program for run.sh: node npm.mjs [PACKAGE].
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'

const { Verifier } = await import(
  process.argv[2] ? pathToFileURL(`${process.argv[2]}/index.js`).href : 'approov-verify'
)

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())
/** One character for each byte, as HTTP servers give the values of headers. */
const latin1 = (value) => Buffer.from(value, 'utf8').toString('latin1')

async function verdict({ now, secret, jwe_secret: jweSecret, jwks, case: { config, earlier, request } }) {
  const { keys = 'secret', jwe, accepted_nonce: unsupported, ...options } = config
  if (unsupported !== undefined) return 'skip'
  const verifierFor = (publicUrl) =>
    new Verifier({
      publicUrl,
      clock: () => now * 1000,
      ...(keys === 'keyset' ? {} : { secret }),
      ...(keys === 'secret' ? {} : { jwks }),
      ...(jwe ? { jweSecret } : {}),
      ...Object.fromEntries(Object.entries(options).map(([name, value]) => [camel(name), value])),
    })
  const verifier = verifierFor(request.public_url ?? 'https://unused.example')
  const check = ({ method, url, target, headers, body, binding }) =>
    verifier.check({
      method,
      url: target === undefined ? url : undefined,
      target,
      headers: headers.map(([name, value]) => [name, latin1(value)]),
      binding: binding ?? undefined,
      readBody: () => (body === null ? undefined : Buffer.from(body)),
    })
  for (const before of earlier) await check(before)
  const { ok, code } = await check(request)
  return ok ? 'ok' : code
}

for (const line of (await text(process.stdin)).trimEnd().split('\n')) console.log(await verdict(JSON.parse(line)))
