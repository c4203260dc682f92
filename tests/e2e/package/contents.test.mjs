// What is in the npm package, and how its files behave before any function is called.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

import { HANG } from '../harness/wait.mjs'
import { unpackTarball } from '../harness/world.mjs'

const SCRIPTS = ['approov.js', 'index.js', 'lite.js', 'node.js']
/** Scripts without WebAssembly. */
const SMALL_SCRIPTS = ['checks.js', 'errors.js']

/** The addresses of the check services, and the import of a module of one: what `approov-web-sdk/checks` loads. */
const LOADED = [
  'https://js.hcaptcha.com/1/api.js?render=explicit&recaptchacompat=off',
  'https://www.google.com/recaptcha/',
  'https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit',
  'https://cdn.jsdelivr.net/npm/@friendlycaptcha/sdk@1.0.2/site.min.js',
  'https://fpjscdn.net/v4/',
  'import(/* webpackIgnore: true */ /* @vite-ignore */ a)',
]
const withoutLoaded = (text) => LOADED.reduce((text, part) => text.replaceAll(part, ''), text)

/** But an example in a message. */
const OTHER_ADDRESS = /\bhttps?:\/\/(?!api\.example\.com")/

/** Fails with the position alone: the files are long. The bytes of the WebAssembly, at the end of `approov.js`, are no code. */
function lacks(file, text, patterns) {
  const [code] = text.split('function approovWasm(){')
  const least = SMALL_SCRIPTS.includes(file) ? 500 : 10_000
  assert.ok(code.length > least && code.length < 40_000, `${file} has ${code.length} characters of code`)
  for (const pattern of patterns) {
    const at = code.search(pattern)
    assert.equal(at, -1, `${file} has ${pattern}: ${code.slice(Math.max(0, at - 40), at + 60)}`)
  }
}

describe('the npm package', () => {
  let unpacked
  const read = (name) => readFile(join(unpacked.path, name), 'utf8')
  before(async () => {
    unpacked = await unpackTarball()
  })
  after(() => unpacked?.remove())

  test('has these files and no others', async () => {
    assert.deepEqual((await readdir(unpacked.path)).sort(), [
      'CHANGELOG.md',
      'LICENSE-APACHE',
      'LICENSE-MIT',
      'README.md',
      'approov.d.ts',
      'approov.js',
      'approov.js.map',
      'approov_bg.wasm',
      'approov_lite_bg.wasm',
      'checks.d.ts',
      'checks.js',
      'checks.js.map',
      'errors.js',
      'errors.js.map',
      'index.js',
      'index.js.map',
      'integrity.json',
      'lite.d.ts',
      'lite.js',
      'lite.js.map',
      'node.js',
      'node.js.map',
      'one-file.d.ts',
      'package.json',
    ])
  })

  test('names only files that it has', async () => {
    const manifest = JSON.parse(await read('package.json'))
    const names = []
    const collect = (value) => {
      if (typeof value === 'string') names.push(value)
      else if (value) Object.values(value).forEach(collect)
    }
    collect([manifest.exports, manifest.main, manifest.module, manifest.types])
    assert.ok(names.length > 0)
    for (const name of names.filter((name) => !name.includes('*'))) await read(name)
  })

  test('says its name, version and licence', async () => {
    const manifest = JSON.parse(await read('package.json'))
    assert.equal(manifest.name, 'approov-web-sdk')
    assert.match(manifest.version, /^\d+\.\d+\.\d+$/)
    assert.notEqual(manifest.version, '0.0.0')
    assert.equal(manifest.license, 'MIT OR Apache-2.0')
  })

  test('has no code that is made from text, which content security policies forbid', async () => {
    for (const file of [...SCRIPTS, ...SMALL_SCRIPTS]) {
      lacks(file, await read(file), [
        /\beval\s*\(/,
        // But the glue shows a function as `Function(name)` in a text.
        /(?<![\w`"'.$])Function\s*\(/,
        /\bimportScripts\b/,
        /set(Timeout|Interval)\s*\(\s*["'`]/,
        /\.innerHTML\b/,
        /document\.write/,
        /\.text(Content)?\s*=[^=]/,
      ])
    }
  })

  test('has its whole code in approov.js: no other file, no other address', async () => {
    lacks('approov.js', withoutLoaded(await read('approov.js')), [
      /import\.meta/,
      /["'`][^"'`\s]*\.wasm["'`]/,
      /\bimport\(/,
      /(^|[;}\s])import\s*["'{*]/,
      OTHER_ADDRESS,
    ])
  })

  test('has the loaders in two files only, and leaves the import of a module to the browser', async () => {
    for (const file of ['approov.js', 'checks.js']) {
      const code = await read(file)
      for (const part of LOADED) assert.equal(code.split(part).length, 2, `${file}: ${part}`)
    }
    for (const file of ['index.js', 'lite.js', 'node.js', 'errors.js']) {
      lacks(file, await read(file), [OTHER_ADDRESS, /createElement\(/, /\bimport\(/])
    }
  })

  test('has its classes of errors in one file, which all entries import', async () => {
    for (const file of ['index.js', 'lite.js', 'node.js', 'checks.js']) {
      assert.match(await read(file), /\bfrom"\.\/errors\.js"/, file)
    }
    const urls = ['node.js', 'index.js', 'lite.js', 'checks.js'].map((file) => pathToFileURL(join(unpacked.path, file)))
    const [node, index, lite, checks] = await Promise.all(urls.map(({ href }) => import(href)))
    assert.equal(index.ApproovCheckError, node.ApproovCheckError)
    assert.equal(lite.ApproovError, node.ApproovError)
    await assert.rejects(
      checks.hcaptcha()({ signal: new AbortController().signal, keys: {} }),
      (/** @type {any} */ error) => {
        assert.ok(error instanceof node.ApproovCheckError)
        return error.code === 'check-unsupported' && error.check === 'hcaptcha'
      },
    )
  })

  for (const [file, wasm] of [
    ['index.js', 'approov_bg.wasm'],
    ['lite.js', 'approov_lite_bg.wasm'],
  ]) {
    test(`${file} refers to its WebAssembly by the form that bundlers recognise`, async () => {
      assert.match(await read(file), new RegExp(`new URL\\(["']\\./${wasm}["'],\\s*import\\.meta\\.url\\)`))
      assert.ok(await WebAssembly.compile(await readFile(join(unpacked.path, wasm))))
    })
  }

  test('says the integrity hash of each script and each WebAssembly file', async () => {
    const hashes = JSON.parse(await read('integrity.json'))
    assert.deepEqual(Object.keys(hashes), [
      'approov.js',
      'approov_bg.wasm',
      'approov_lite_bg.wasm',
      'checks.js',
      'errors.js',
      'index.js',
      'lite.js',
      'node.js',
    ])
    for (const [name, said] of Object.entries(hashes)) {
      assert.equal(
        said,
        `sha384-${createHash('sha384')
          .update(await readFile(join(unpacked.path, name)))
          .digest('base64')}`,
      )
    }
  })

  test('has source maps with sources, and without the embedded bytes', async () => {
    for (const file of [...SCRIPTS, ...SMALL_SCRIPTS]) {
      assert.match(await read(file), new RegExp(`//# sourceMappingURL=${file}\\.map\\s*$`))
      const map = JSON.parse(await read(`${file}.map`))
      const name = SMALL_SCRIPTS.includes(file) ? file : 'src/approov.js'
      const facade = map.sources.findIndex((source) => source.endsWith(name))
      assert.match(map.sourcesContent[facade], /Approov/)
      assert.ok(
        map.sources.every((name) => !name.startsWith('/')),
        `${map.sources}`,
      )
      assert.ok(JSON.stringify(map.sourcesContent).length < 200_000)
    }
  })

  for (const file of SCRIPTS) {
    test(`${file} imports in Node without a side effect`, async () => {
      const script = `
        const before = new Set(Reflect.ownKeys(globalThis))
        globalThis.fetch = () => { throw new Error('import fetched something') }
        WebAssembly.compile = WebAssembly.instantiate = WebAssembly.Instance = WebAssembly.Module = () => { throw new Error('import compiled something') }
        const sdk = await import(${JSON.stringify(pathToFileURL(join(unpacked.path, file)).href)})
        const added = Reflect.ownKeys(globalThis).filter((key) => !before.has(key))
        console.log(JSON.stringify({ exported: Object.keys(sdk).sort(), added, active: process.getActiveResourcesInfo().filter((kind) => !/Pipe|TTY|FSReq|CloseReq/.test(kind)) }))`
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
        timeout: HANG,
      })
      assert.deepEqual(JSON.parse(stdout), {
        exported: [
          'Approov',
          'ApproovCheckError',
          'ApproovError',
          'ApproovFetchError',
          'ApproovServiceError',
          'ApproovSessionError',
          ...(file === 'approov.js' ? ['checks'] : []),
        ],
        added: [],
        active: [],
      })
    })
  }

  test('would be published as it is', async () => {
    const { stderr } = await promisify(execFile)('npm', ['publish', '--dry-run', '--offline'], { cwd: unpacked.path })
    const complaints = stderr
      .split('\n')
      .filter((line) => /npm (error|warn publish)/.test(line) && !line.includes('to be logged in'))
    assert.deepEqual(complaints, [])
  })
})
