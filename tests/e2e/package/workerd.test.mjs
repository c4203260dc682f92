// The package in workerd, the runtime of Cloudflare Workers, where WebAssembly can only be imported as a module.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'

import { startProtectedApi, startService } from '../../../www-demo/stack.mjs'
import { HANG } from '../harness/wait.mjs'
import { installFixture } from './fixtures.mjs'

test('a Worker gets a token, and its request is accepted', { timeout: 3 * HANG }, async (context) => {
  const fixture = await installFixture('workerd')
  context.after(fixture.remove)
  await fixture.build()
  const dist = join(fixture.path, 'dist')
  const wasm = 'approov_bg.wasm'
  await copyFile(join(fixture.path, 'node_modules/approov-web-sdk', wasm), join(dist, wasm))
  await writeFile(
    join(dist, 'config.capnp'),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [(name = "worker.js", esModule = embed "worker.js"), (name = "${wasm}", wasm = embed "${wasm}")],
      compatibilityDate = "2025-01-01",
    )),
    (name = "internet", network = (allow = ["local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")]
);
`,
  )
  const { default: program } = createRequire(join(fixture.path, 'package.json'))('workerd')
  const child = spawn(program, ['serve', join(dist, 'config.capnp'), '--control-fd=1'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  context.after(() => void child.kill())
  const [line] = await once(child.stdout, 'data')
  const worker = `http://127.0.0.1:${JSON.parse(String(line).split('\n')[0]).port}`

  const service = await startService()
  context.after(service.stop)
  const { account } = service
  const api = await startProtectedApi({ secret: account.secret, allowOrigin: worker })
  context.after(api.stop)
  const session = {
    approovHost: account.url,
    approovSiteKey: account.site_key,
    hcaptchaSiteKey: account.hcaptcha_site_key,
  }
  const debug = { hcaptchaToken: '10000000-aaaa-bbbb-cccc-000000000001', timeout: HANG }
  const body = JSON.stringify({ url: `${api.url}/shapes`, session, debug })
  for (let visit = 0; visit < 2; visit++) {
    const answer = await fetch(worker, { method: 'POST', body })
    const text = await answer.text()
    assert.equal(answer.status, 200, text)
    const { status, body: verdict } = JSON.parse(text)
    assert.deepEqual([status, verdict.proof.accepted, Boolean(verdict.proof.msgs)], [200, true, true])
  }
})
