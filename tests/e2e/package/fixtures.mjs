// Fresh projects that install the tarball from npm's point of view, and build with the bundler they are named after.
import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const runFile = promisify(execFile)

/**
 * Runs a program; what it printed is in the error when it fails.
 *
 * @returns {Promise<{stdout: string, stderr: string}>}
 */
export async function run(program, args, options) {
  try {
    return /** @type {any} */ (await runFile(program, args, { maxBuffer: 64 << 20, ...options }))
  } catch (error) {
    throw new Error(`${program} ${args.join(' ')} failed\n${error.stdout}\n${error.stderr}`, { cause: error })
  }
}

/** Copies a fixture to a new place and installs what its lock file says, and the tarball. */
export async function installFixture(name) {
  const path = join(await mkdtemp(join(tmpdir(), `approov-${name}-`)), name)
  const remove = () => rm(join(path, '..'), { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  try {
    await cp(fileURLToPath(new URL(`fixtures/${name}`, import.meta.url)), path, {
      recursive: true,
      filter: (source) => !/node_modules|[/\\](dist|out|\.next)$/.test(source),
    })
    // Not `npm ci`: that wants the packages of all platforms to be in the lock file, and registry mirrors lack some of them.
    await run('npm', ['install', '--no-save', '--prefer-offline', process.env.APPROOV_TARBALL], {
      cwd: path,
      env: environment(),
    })
    const build = () => run('npm', ['run', 'build'], { cwd: path, env: environment() })
    return { path, build, remove }
  } catch (error) {
    await remove()
    throw error
  }
}

/** No tool of a fixture reports home, and none takes itself for a part of this test run. */
function environment() {
  const { NODE_TEST_CONTEXT, NODE_OPTIONS, ...env } = process.env
  return { ...env, NEXT_TELEMETRY_DISABLED: '1', CI: '1' }
}
