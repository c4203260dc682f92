// What a page has to load: the package's files beside comparable packages, minified, after gzip and after brotli.
// Started by `cargo xtask bench size`.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

import { machine, table, verdict, writeResult } from './report.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

/** What of each peer does a comparable job: everything that the named imports bring along. */
const PEERS = {
  'npm dpop (proofs only)': `export { generateKeyPair, generateProof } from 'dpop'`,
  'npm jose (signing only)': `export { SignJWT, exportJWK, generateKeyPair } from 'jose'`,
  'Firebase app and App Check': `export { initializeApp } from '@firebase/app'; export { initializeAppCheck, getToken, ReCaptchaV3Provider } from '@firebase/app-check'`,
  'auth0-spa-js': `export { Auth0Client } from '@auth0/auth0-spa-js'`,
  'atproto browser client': `export { BrowserOAuthClient } from '@atproto/oauth-client-browser'`,
}

const size = (bytes) => ({
  minified: bytes.length,
  gzip: gzipSync(bytes, { level: 9 }).length,
  brotli: brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length,
})
const sum = (a, b) => Object.fromEntries(Object.keys(a).map((key) => [key, a[key] + b[key]]))

const file = (name) => size(readFileSync(join(process.env.APPROOV_PACKAGE, name)))
const ours = { 'approov.js, all in one file': file('approov.js'), 'index.js and approov_bg.wasm': sum(file('index.js'), file('approov_bg.wasm')) }
if (existsSync(join(process.env.APPROOV_PACKAGE, 'lite.js'))) {
  ours['lite.js and approov_lite_bg.wasm'] = sum(file('lite.js'), file('approov_lite_bg.wasm'))
}
const theirs = Object.fromEntries(
  Object.entries(PEERS).map(([name, source]) => [
    name,
    size(
      execFileSync(
        here('node_modules/.bin/esbuild'),
        ['--bundle', '--format=esm', '--target=es2022', '--minify', '--platform=browser', '--log-level=error', '--define:process.env.NODE_ENV="production"'],
        { input: source, cwd: here('.'), maxBuffer: 1e8 },
      ),
    ),
  ]),
)

/** Bytes after brotli. */
const BUDGET = { 'approov.js, all in one file': 45_000, 'lite.js and approov_lite_bg.wasm': 18_000 }
writeResult('size', { machine: machine(), ours, theirs })
table(
  ['what', 'minified', 'gzip', 'brotli', 'budget', 'holds'],
  Object.entries({ ...ours, ...theirs }).map(([name, { minified, gzip, brotli }]) => [
    name,
    ...[minified, gzip, brotli].map((bytes) => bytes.toLocaleString('en')),
    ...verdict(BUDGET[name], brotli <= BUDGET[name], `≤ ${BUDGET[name]?.toLocaleString('en')}`),
  ]),
)
