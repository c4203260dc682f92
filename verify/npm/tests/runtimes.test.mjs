// The package in other runtimes than Node.
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import workerd from 'workerd'
import { OPTIONS, session } from './support.mjs'

const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const bin = (name) => here(`node_modules/.bin/${name}`)

for (const [runtime, command] of Object.entries({ Bun: [bin('bun')], Deno: [bin('deno'), 'run', '--allow-all'] })) {
  test(`${runtime} lets a good request pass once`, async () => {
    const { headers } = await session()
    const given = JSON.stringify({ options: OPTIONS, headers: await headers('POST', '/order', { body: 'two' }) })
    const [program, ...rest] = command
    const { stdout } = await promisify(execFile)(program, [...rest, here('runtimes/twice.mjs'), given])
    assert.equal(stdout.trim(), 'ok two proof_replayed')
  })
}

describe('Workers', () => {
  let directory, child, address
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'approov-workerd-'))
    // As wrangler bundles a worker: conditions of its own, WebAssembly as a module.
    await build({
      entryPoints: [here('runtimes/worker.mjs')],
      outfile: join(directory, 'worker.js'),
      bundle: true,
      format: 'esm',
      conditions: ['workerd'],
      external: ['*.wasm'],
      define: { OPTIONS: JSON.stringify(OPTIONS) },
    })
    const wasm = 'approov_verify_bg.wasm'
    await copyFile(here(`node_modules/approov-verify/${wasm}`), join(directory, wasm))
    const modules = `(name = "worker.js", esModule = embed "worker.js"), (name = "${wasm}", wasm = embed "${wasm}")`
    await writeFile(
      join(directory, 'config.capnp'),
      `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = (modules = [${modules}], compatibilityDate = "2025-01-01"))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
`,
    )
    const serve = ['serve', join(directory, 'config.capnp'), '--control-fd=1']
    child = spawn(workerd.default ?? workerd, serve, { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = await once(child.stdout, 'data')
    address = `http://127.0.0.1:${JSON.parse(String(line).split('\n')[0]).port}`
  })
  after(async () => {
    child?.kill()
    await rm(directory, { recursive: true })
  })

  test('let a good request pass once, and the handler gets its body', async () => {
    const { headers } = await session()
    const post = { method: 'POST', headers: await headers('POST', '/order', { body: 'two' }), body: 'two' }
    const good = await fetch(`${address}/order`, post)
    assert.deepEqual(await good.json(), { body: 'two', ip: '192.0.2.1', message: true })
    const again = await fetch(`${address}/order`, post)
    assert.equal(again.status, 401)
    assert.equal((await again.json()).code, 'proof_replayed')
  })
})
