// The package as a TypeScript project and the registry's critics see it.
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { installFixture, run } from './fixtures.mjs'

/** Resolutions that never reach an ES module; the tool's profile for such packages leaves them out of its verdict. */
const NOT_ESM = ['node10', 'node16-cjs']

describe('the types of the package', () => {
  let fixture
  const tool = (name, ...args) => run(join(fixture.path, 'node_modules/.bin', name), args, { cwd: fixture.path })
  before(async () => {
    fixture = await installFixture('types')
  })
  after(() => fixture?.remove())

  test('allow what is right and catch what is wrong', async () => {
    await tool('tsc', '--project', '.')
  })

  test('are checked: a mistake that nobody expects fails', async () => {
    const path = join(fixture.path, 'src/bad.ts')
    const text = await readFile(path, 'utf8')
    const first = text.indexOf('// @ts-expect-error')
    await writeFile(path, text.slice(0, first) + text.slice(text.indexOf('\n', first) + 1))
    await assert.rejects(tool('tsc', '--project', '.'), /bad\.ts/)
    await writeFile(path, text)
  })

  for (const resolution of ['node16', 'nodenext']) {
    test(`resolve as ${resolution} does it`, async () => {
      await tool('tsc', '--project', '.', '--module', resolution, '--moduleResolution', resolution)
    })
  }

  test('do with TypeScript 5.9, and in a worker, which has no document', async () => {
    const compiler = join(fixture.path, 'node_modules/typescript-5/bin/tsc')
    const check = (...args) => run(process.execPath, [compiler, ...args], { cwd: fixture.path })
    await check('--project', '.')
    const worker =
      "import { Approov } from 'approov-web-sdk'\nexport const fetching: Promise<string> = Approov.fetchToken('api')\n"
    await writeFile(join(fixture.path, 'worker.ts'), worker)
    const options = [
      '--noEmit',
      '--strict',
      '--module',
      'esnext',
      '--moduleResolution',
      'bundler',
      '--typeRoots',
      './none',
    ]
    await check(...options, '--target', 'es2022', '--lib', 'es2022,webworker', 'worker.ts')
  })

  test('publint has nothing to say', async () => {
    const { stdout } = await tool('publint', 'run', process.env.APPROOV_TARBALL, '--strict')
    assert.match(stdout, /All good!/)
  })

  test('are the types wrong? No', async () => {
    // The package is ES modules only; its data files have no types.
    const data = ['approov_bg.wasm', 'approov_whole_bg.wasm', 'integrity.json', 'package.json']
    const { stdout } = await tool(
      'attw',
      process.env.APPROOV_TARBALL,
      '--profile',
      'esm-only',
      '--format',
      'json',
      '--exclude-entrypoints',
      ...data,
    )
    const { analysis, problems } = JSON.parse(stdout)
    assert.deepEqual(Object.keys(analysis.entrypoints).sort(), [
      '.',
      './approov.compat.js',
      './approov.js',
      './checks',
      './lite',
      './testing',
    ])
    const relevant = Object.values(problems ?? {})
      .flat()
      .filter(({ resolutionKind }) => !NOT_ESM.includes(resolutionKind))
    assert.deepEqual(relevant, [])
  })
})
