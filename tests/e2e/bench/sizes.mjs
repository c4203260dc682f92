// Sizes of the package's entries next to those of packages that do a similar job, bundled and minified by the same bundler in
// the same run. Writes JSON; `cargo xtask bench size` makes the table.
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

/** The bundler that makes the package bundles the peers, too. @type {typeof import('esbuild')} */
const { build } = createRequire(new URL('../../../xtask/package.json', import.meta.url))('esbuild')

const { values: options } = parseArgs({ options: { output: { type: 'string' }, dist: { type: 'string' } } })

/** What a visitor loads for each entry of the package. */
const ENTRIES = [
  { name: 'approov.js', files: ['approov.js'] },
  { name: 'index.js + wasm', files: ['index.js', 'errors.js', 'approov_bg.wasm'] },
  { name: 'whole.js + wasm, where there is no WebCrypto', files: ['whole.js', 'approov_whole_bg.wasm'] },
  { name: 'checks.js', files: ['checks.js'] },
  { name: 'approov.compat.js', files: ['approov.compat.js'] },
]

/** What a page imports of each peer for the job: a client that gets tokens and keeps them fresh, or a maker of proofs. */
const PEERS = {
  '@firebase/app-check': `export { initializeApp } from '@firebase/app'
    export { initializeAppCheck, getToken, ReCaptchaV3Provider } from '@firebase/app-check'`,
  '@auth0/auth0-spa-js': "export { Auth0Client } from '@auth0/auth0-spa-js'",
  '@atproto/oauth-client-browser': "export { BrowserOAuthClient } from '@atproto/oauth-client-browser'",
  '@okta/okta-auth-js': "export { OktaAuth } from '@okta/okta-auth-js'",
  '@azure/msal-browser': "export { PublicClientApplication } from '@azure/msal-browser'",
  oauth4webapi: "export * from 'oauth4webapi'",
  dpop: "export * from 'dpop'",
  jose: "export { SignJWT, generateKeyPair, exportJWK } from 'jose'",
  '@noble/curves': "export { p256 } from '@noble/curves/nist.js'",
}

const peers = fileURLToPath(new URL('peers', import.meta.url))

async function bundled(source) {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: peers },
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    platform: 'browser',
    charset: 'utf8',
    legalComments: 'none',
    write: false,
    logLevel: 'error',
  })
  return [Buffer.from(outputFiles[0].contents)]
}

/** Files are compressed one by one, as a server does it. */
function measure(subject, files) {
  const total = (size) => files.reduce((sum, bytes) => sum + size(bytes), 0)
  const brotli = (bytes) =>
    brotliCompressSync(bytes, {
      params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
    }).length
  const sizes = {
    minified: total((bytes) => bytes.length),
    gzip: total((bytes) => gzipSync(bytes, { level: 9 }).length),
    brotli: total(brotli),
  }
  return Object.entries(sizes).map(([measure, size]) => ({
    engine: '',
    measure,
    subject,
    unit: 'bytes',
    rounds: [size],
  }))
}

const exists = (path) =>
  stat(path).then(
    () => true,
    (error) => {
      if (error.code === 'ENOENT') return false
      throw error
    },
  )

const series = []
for (const { name, files } of ENTRIES) {
  const paths = files.map((file) => join(options.dist, file))
  const there = await Promise.all(paths.map(exists))
  if (!there[0]) {
    console.log(`the package has no ${files[0]}`)
    continue
  }
  series.push(...measure(`ours: ${name}`, await Promise.all(paths.map((path) => readFile(path)))))
}
const versions = {}
const manifest = JSON.parse(await readFile(join(peers, 'package.json'), 'utf8'))
for (const [name, source] of Object.entries(PEERS)) {
  versions[name] = manifest.devDependencies[name]
  series.push(...measure(name, await bundled(source)))
}
await writeFile(options.output, JSON.stringify({ peers: versions, series }, null, 1))
