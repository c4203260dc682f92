// One browser under WebDriver, with a way to run a function inside the page it shows.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

import { Builder, Capabilities } from 'selenium-webdriver'

import { startProgram } from '../../../www-demo/stack.mjs'
import { ENGINES, freePort } from './engines.mjs'
import { HANG, until } from './wait.mjs'

/** The time-out of `run`: a delay that nothing else has, because WebKit's driver waits for it by the page's own `setTimeout`. */
export const SCRIPT_TIMEOUT = HANG + 1

/**
 * Starts a browser of an engine.
 *
 * @param {keyof typeof ENGINES} engineName
 * @param {{flags?: string[]}} [options] further flags of the browser
 */
export async function openBrowser(engineName, { flags = [] } = {}) {
  const engine = ENGINES[engineName]
  const profile = await mkdtemp(join(tmpdir(), 'approov-browser-'))
  const cleanups = [() => rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })]
  const close = async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  }
  try {
    const env = {}
    if (engine.needsDisplay && !process.env.DISPLAY) {
      const display = await startDisplay()
      cleanups.push(display.stop)
      env.DISPLAY = display.name
    }
    const port = await freePort()
    const driver = await startDriver(engine, port, env)
    cleanups.push(driver.stop)
    const webdriver = await new Builder()
      .usingServer(`http://127.0.0.1:${port}`)
      .withCapabilities(new Capabilities(engine.capabilities({ profile, flags, browserBinary: miniBrowser() })))
      .build()
    cleanups.push(() => webdriver.quit())
    await webdriver.manage().setTimeouts({ script: SCRIPT_TIMEOUT, pageLoad: HANG })
    return { engine: engineName, webdriver, run: (work, ...args) => runInPage(webdriver, work, args), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function startDriver(engine, port, env) {
  const program = findProgram(engine.driver)
  if (!program) throw new Error(`${engine.driver} is not on PATH`)
  if (engine.listens) {
    return startProgram(engine.driver, program, engine.driverArguments(port), {
      env,
      ready: (line) => engine.listens.test(line),
    })
  }
  const child = spawn(program, engine.driverArguments(port), { env: { ...process.env, ...env }, stdio: 'ignore' })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const killWithUs = () => child.kill('SIGKILL')
  process.on('exit', killWithUs)
  const status = `http://127.0.0.1:${port}/status`
  await until(`${engine.driver} responds at ${status}`, () =>
    fetch(status).then(
      ({ ok }) => ok,
      () => false,
    ),
  )
  return {
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      process.off('exit', killWithUs)
    },
  }
}

/** A virtual display that chooses its own number. */
async function startDisplay() {
  const program = findProgram('Xvfb')
  if (!program) throw new Error('Xvfb is not on PATH')
  const display = await startProgram(
    'Xvfb',
    program,
    ['-displayfd', '1', '-screen', '0', '1280x900x24', '-nolisten', 'tcp'],
    {
      ready: (line) => /^\d+$/.test(line) && line,
    },
  )
  return { name: `:${display.ready}`, stop: display.stop }
}

function findProgram(name) {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((directory) => join(directory, name))
    .find((path) => existsSync(path))
}

/** WebKitGTK's small browser, which Debian keeps outside PATH. */
function miniBrowser() {
  return ['x86_64-linux-gnu', 'aarch64-linux-gnu']
    .flatMap((triple) => ['4.1', '4.0'].map((version) => `/usr/lib/${triple}/webkit2gtk-${version}/MiniBrowser`))
    .find((path) => existsSync(path))
}

/**
 * Runs a function in the page and returns what it resolves to. The function travels as its source: it sees its
 * arguments and the page, nothing of this file. What it throws arrives as a {@link PageError}. The page's own `eval`
 * makes the function, because Firefox's WebDriver runs scripts in a sandbox that has modules of its own.
 */
async function runInPage(webdriver, work, args) {
  const outcome = await webdriver.executeAsyncScript(
    'const done = arguments[2]; window.eval(arguments[0])(...arguments[1]).then(done, (error) => done({ error: { name: "run", message: String(error) } }))',
    `(${inPage})(${work})`,
    args,
  )
  if (outcome.error) throw new PageError(outcome.error)
  return outcome.value
}

/** Lives in the page: makes of a function one that resolves to its value or to a description of what it threw. */
function inPage(work) {
  const describe = (/** @type {any} */ error, depth = 0) => {
    if (!(error instanceof Error)) return { name: typeof error, message: String(error) }
    const { name, message, code, retryable } = error
    const nested = (value) => (depth < 2 && value instanceof Error ? describe(value, depth + 1) : value)
    return {
      name,
      message,
      code,
      retryable,
      stack: String(error.stack),
      errors: nested(error.errors),
      cause: nested(error.cause),
    }
  }
  return async (...args) => {
    try {
      return { value: (await work(...args)) ?? null }
    } catch (error) {
      return { error: describe(error) }
    }
  }
}

/** An error that was thrown in the page. */
export class PageError extends Error {
  constructor(description) {
    super(`${description.name}: ${description.message}`)
    this.name = 'PageError'
    /** Name, message, code, errors and cause of the original. */
    this.original = description
  }
}
