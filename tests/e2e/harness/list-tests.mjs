// Lists the tests of files without running them or their hooks, for `cargo xtask test PART NAME`: a line for each test, with the
// file, the names of the suites around it and its own, separated by tabs.
import { register } from 'node:module'
import { pathToFileURL } from 'node:url'

/** The file, and the names of the suites around what is being declared. */
const path = ['']

/** @param {string} name @param {...unknown} rest options and the body, of which a suite's declares what is in it */
export function describe(name, ...rest) {
  path.push(name)
  const body = rest.find((value) => typeof value === 'function')
  body?.()
  path.pop()
}

/** @param {string} name */
export function test(name) {
  console.log([...path, name].join('\t'))
}

export const [before, after, beforeEach, afterEach] = Array(4).fill(() => {})
export { test as it, describe as suite }

// To the files, this module is node:test.
const resolve = `export const resolve = (name, context, next) =>
  name === 'node:test' ? { url: ${JSON.stringify(import.meta.url)}, shortCircuit: true } : next(name, context)`
register(`data:text/javascript,${encodeURIComponent(resolve)}`)

/** One after the other, so that each test is known by its file. */
async function list() {
  for (const file of process.argv.slice(2)) {
    path[0] = file
    await import(pathToFileURL(file).href)
  }
}

// Not awaited here: the files import this module, which has to be complete for that.
list().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
