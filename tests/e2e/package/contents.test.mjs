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

const COMPAT = 'approov.compat.js'
/** The beginning of an import that bundlers are told to leave alone: the second try for the file without WebAssembly. */
const UNFOLLOWED = 'import(/*webpackIgnore:true*//*@vite-ignore*/'
const SCRIPTS = ['approov.js', COMPAT, 'index.js', 'node.js', 'whole.js', 'workerd.js']

/** Fails with the position alone: the files are long. The bytes of the WebAssembly, at the end of `approov.js`, are no code. */
function lacks(file, text, patterns) {
  const [code] = text.split('function approovWasm(){')
  if (file === COMPAT) {
    const [hand, made] = code.split('function approovAsm(')
    assert.ok(made.length > 200_000, `${file} has no code of the WebAssembly`)
    for (const pattern of patterns) assert.equal(made.search(pattern), -1, `${file} has ${pattern}`)
    return lacks('', hand, patterns)
  }
  assert.ok(code.length > 5_000 && code.length < 45_000, `${file} has ${code.length} characters of code`)
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
      'approov.compat.js',
      'approov.compat.js.map',
      'approov.d.ts',
      'approov.js',
      'approov.js.map',
      'approov_bg.wasm',
      'approov_whole_bg.wasm',
      'checks.d.ts',
      'checks.js',
      'checks.js.map',
      'errors.js',
      'errors.js.map',
      'index.js',
      'index.js.map',
      'integrity.json',
      'node.js',
      'node.js.map',
      'one-file.d.ts',
      'package.json',
      'testing.d.ts',
      'testing.js',
      'testing.js.map',
      'whole.js',
      'whole.js.map',
      'workerd.js',
      'workerd.js.map',
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
    for (const file of SCRIPTS) {
      lacks(file, await read(file), [
        /\beval\s*\(/,
        // But the glue shows a function as `Function(name)` in a text.
        /(?<![\w`"'.$])Function\s*\(/,
        /\bimportScripts\b/,
        /set(Timeout|Interval)\s*\(\s*["'`]/,
        /\.innerHTML\b/,
        /document\.write/,
      ])
    }
  })

  for (const file of ['approov.js', COMPAT]) {
    test(`has its whole code in ${file}: no other file, no other address`, async () => {
      const imports = file === COMPAT ? [] : ['import("./approov.compat.js")', `${UNFOLLOWED}\``]
      const agent = 'import(/* webpackIgnore: true */ /* @vite-ignore */ a)'
      const text = [...imports, agent].reduce(
        (text, part) => {
          assert.equal(text.split(part).length, 2, `${file} has not once ${part}`)
          return text.replace(part, '')
        },
        await read(file),
      )
      lacks(file, text, [
        /import\.meta/,
        /["'`][^"'`\s]*\.wasm["'`]/,
        /\bimport\(/,
        /(^|[;}\s])import\s*["'{*]/,
        // But the check services' scripts, and how an error shows an origin.
        /\bhttps?:\/\/(?!js\.hcaptcha\.com\/|www\.google\.com\/recaptcha\/|challenges\.cloudflare\.com\/|cdn\.jsdelivr\.net\/|fpjscdn\.net\/|api\.example\.com")/,
      ])
    })
  }

  for (const [file, wasm] of [
    ['index.js', 'approov_bg.wasm'],
    ['whole.js', 'approov_whole_bg.wasm'],
  ]) {
    test(`${file} refers to its WebAssembly by the form that bundlers recognise`, async () => {
      assert.match(await read(file), new RegExp(`new URL\\(["']\\./${wasm}["'],\\s*import\\.meta\\.url\\)`))
      assert.ok(await WebAssembly.compile(await readFile(join(unpacked.path, wasm))))
    })
  }

  test('says the integrity hash of each script and each WebAssembly file', async () => {
    const hashes = JSON.parse(await read('integrity.json'))
    assert.deepEqual(Object.keys(hashes), [
      'approov.compat.js',
      'approov.js',
      'approov_bg.wasm',
      'approov_whole_bg.wasm',
      'checks.js',
      'errors.js',
      'index.js',
      'node.js',
      'testing.js',
      'whole.js',
      'workerd.js',
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
    for (const file of SCRIPTS) {
      assert.match(await read(file), new RegExp(`//# sourceMappingURL=${file}\\.map\\s*$`))
      const map = JSON.parse(await read(`${file}.map`))
      const glue = map.sources.findIndex((name) => name.endsWith('src/glue.js'))
      assert.match(map.sourcesContent[glue], /makeGlue/)
      assert.ok(
        map.sources.every((name) => !name.startsWith('/')),
        `${map.sources}`,
      )
      assert.ok(JSON.stringify(map.sourcesContent).length < 200_000)
    }
  })

  const ERRORS = [
    'ApproovCheckError',
    'ApproovError',
    'ApproovFetchError',
    'ApproovServiceError',
    'ApproovSessionError',
  ]
  // Node does not import WebAssembly as `workerd.js` does.
  for (const file of [...SCRIPTS, 'checks.js', 'testing.js'].filter((file) => file !== 'workerd.js')) {
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
        exported: {
          'approov.js': ['Approov', ...ERRORS, 'checks'],
          [COMPAT]: ['Approov', ...ERRORS, 'checks', 'engine'],
          'checks.js': [
            'altcha',
            'fingerprint',
            'firstOf',
            'friendlyCaptcha',
            'hcaptcha',
            'recaptcha',
            'recaptchaEnterprise',
            'turnstile',
          ],
          'testing.js': ['Approov', ...ERRORS, 'fake', 'installApproov'],
          'whole.js': ['default'],
        }[file] ?? ['Approov', ...ERRORS],
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
