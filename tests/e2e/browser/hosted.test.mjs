// The service as a company runs it: an account made by the command line alone, from an empty folder, over https (docs/SERVICE.md).
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'

import { builtProgram, startProgram } from '../../../www-demo/stack.mjs'
import { chosenEngines, freePort } from '../harness/engines.mjs'
import { startWorld } from '../harness/world.mjs'

const run = promisify(execFile)

// The certificate is made for the test: only Chromium has a flag to accept it.
for (const engine of chosenEngines().filter((name) => name === 'chromium')) {
  describe('a hosted service in Chromium', () => {
    test('an account made by the command line alone gives a browser a token over https', async (context) => {
      const world = await startWorld(engine, { flags: ['--ignore-certificate-errors'] })
      context.after(world.stop)
      const directory = await mkdtemp(join(tmpdir(), 'approov-hosted-'))
      context.after(() => rm(directory, { recursive: true, force: true }))
      const program = builtProgram('APPROOV_WEB_SERVICE')
      const command = async (...args) => (await run(program, args, { cwd: directory })).stdout

      const siteKey = /site key (\S+)/.exec(await command('account', '-add', '-y'))[1]
      await command('api', '-add', 'localhost', '-allowWeb', '-y')
      const { recaptchaSiteKey } = world.settings.keys.recaptcha
      const secret = '6LeIxAcTAAAAAGG-vFI1TnRWxMZNFuojJ4WifJWe' // Google's public test secret, which the simulator knows
      const check = `${world.service.url}/sim/recaptcha/siteverify`
      await command('web', '-recaptcha', '-add', recaptchaSiteKey, '-secret', secret, '-verifyURL', check, '-y')
      await command('web', '-allowOrigin', world.site.url, '-y')

      await run(
        'openssl',
        [
          ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1'],
          ...[
            '-subj',
            '/CN=localhost',
            '-addext',
            'subjectAltName=DNS:localhost',
            '-keyout',
            'key.pem',
            '-out',
            'cert.pem',
          ],
        ],
        { cwd: directory },
      )
      const port = await freePort()
      const head = `listen = "127.0.0.1:${port}"\ntls_cert = "${directory}/cert.pem"\ntls_key = "${directory}/key.pem"\n`
      const file = join(directory, 'service.toml')
      await writeFile(file, head + (await readFile(file, 'utf8')))
      const hosted = await startProgram('the hosted service', program, ['serve', '--config', file, '--json'], {
        ready: (line) => (line.startsWith('{') ? JSON.parse(line) : undefined),
        onError() {},
      })
      context.after(hosted.stop)

      await world.freshPage()
      const settings = {
        ...world.settings,
        approovHost: `localhost:${port}`,
        approovSiteKey: siteKey,
        api: 'localhost',
      }
      const token = await world.run(async (settings) => {
        const { firstToken } = await import('/flow.js')
        return firstToken(settings, 'recaptcha')
      }, settings)
      const checked = await command('token', '-check', token)
      assert.match(checked, /valid/)
      assert.match(checked, new RegExp(`recap:${recaptchaSiteKey}`))
    })
  })
}
