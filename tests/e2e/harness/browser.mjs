// One browser under WebDriver, with a way to run a function inside the page it shows.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

import { Builder, Capabilities } from 'selenium-webdriver'

import { startProgram } from '../../../www-demo/stack.mjs'
import { ENGINES, freePort } from './engines.mjs'

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
    await webdriver.manage().setTimeouts({ script: 60_000, pageLoad: 30_000 })
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
    return startProgram(engine.driver, program, engine.driverArguments(port), { env, ready: (line) => engine.listens.test(line) })
  }
  const child = spawn(program, engine.driverArguments(port), { env: { ...process.env, ...env }, stdio: 'ignore' })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const killWithUs = () => child.kill('SIGKILL')
  process.on('exit', killWithUs)
  await untilItAnswers(`http://127.0.0.1:${port}/status`)
  return {
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      process.off('exit', killWithUs)
    },
  }
}

async function untilItAnswers(url) {
  for (const deadline = Date.now() + 20_000; ; ) {
    try {
      if ((await fetch(url)).ok) return
    } catch (error) {
      if (Date.now() > deadline) throw new Error(`nothing answers at ${url}`, { cause: error })
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** A virtual display that chooses its own number. */
async function startDisplay() {
  const program = findProgram('Xvfb')
  if (!program) throw new Error('Xvfb is not on PATH')
  const display = await startProgram('Xvfb', program, ['-displayfd', '1', '-screen', '0', '1280x900x24', '-nolisten', 'tcp'], {
    ready: (line) => /^\d+$/.test(line) && line,
  })
  return { name: `:${display.ready}`, stop: display.stop }
}

function findProgram(name) {
  return (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, name)).find((path) => existsSync(path))
}

/** WebKitGTK's small browser, which Debian keeps outside PATH. */
function miniBrowser() {
  return ['x86_64-linux-gnu', 'aarch64-linux-gnu']
    .flatMap((triple) => ['4.1', '4.0'].map((version) => `/usr/lib/${triple}/webkit2gtk-${version}/MiniBrowser`))
    .find((path) => existsSync(path))
}

/**
 * Runs a function in the page and returns what it resolves to. The function travels as its source: it sees its
 * arguments and the page, nothing of this file. What it throws arrives as a {@link PageError}.
 */
async function runInPage(webdriver, work, args) {
  const outcome = await webdriver.executeAsyncScript(
    `const done = arguments[arguments.length - 1];
     const describe = (error, depth = 0) => error instanceof Error
       ? { name: error.name, message: error.message, stack: String(error.stack), code: error.code, retryable: error.retryable,
           errors: depth < 2 && error.errors instanceof Error ? describe(error.errors, depth + 1) : error.errors,
           cause: depth < 2 && error.cause !== undefined ? describe(error.cause, depth + 1) : undefined }
       : { name: typeof error, message: String(error) };
     (async () => (${work})(...arguments[0]))()
       .then((value) => done({ value: value === undefined ? null : value }), (error) => done({ error: describe(error) }));`,
    args,
  )
  if (outcome.error) throw new PageError(outcome.error)
  return outcome.value
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
