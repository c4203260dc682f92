// Starts what a web page of this project talks to, on free loopback ports: the web protection service, the protected
// API, and static sites. The demo and the browser tests share it. Nothing here needs a package from npm.
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, normalize, sep } from 'node:path'
import { createInterface } from 'node:readline'

const children = new Set()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
})

/**
 * Starts a program and waits until a line of its standard output says that it is ready.
 *
 * @param {string} name for messages
 * @param {string} program path of the executable
 * @param {string[]} args
 * @param {{ready: (line: string) => any, onError?: (line: string) => void, env?: object, startTimeout?: number}} options
 *   `ready` returns something truthy for the line that says so, which becomes `ready` of the result; `onError` gets each
 *   line of standard error; `startTimeout` is in milliseconds
 */
export async function startProgram(
  name,
  program,
  args,
  { ready, onError = () => {}, env = {}, startTimeout = 120_000 },
) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })
  children.add(child)
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('exit', (code, signal) => resolve(signal ?? `exit status ${code}`))
  }).finally(() => children.delete(child))

  const complaints = []
  createInterface({ input: child.stderr }).on('line', (line) => {
    complaints.push(line)
    if (complaints.length > 50) complaints.shift()
    onError(line)
  })
  const lines = createInterface({ input: child.stdout })
  let timer
  try {
    const found = await Promise.race([
      new Promise((resolve) => lines.on('line', (line) => resolveIfReady(resolve, ready(line)))),
      ended.then((how) => {
        throw new Error(`${name} ended before it was ready (${how})\n${complaints.join('\n')}`)
      }),
      new Promise((_, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${name} was not ready within ${startTimeout} ms\n${complaints.join('\n')}`)),
          startTimeout,
        )
      }),
    ])
    return { name, ready: found, pid: child.pid, ended, stop: () => stop(child, ended) }
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  } finally {
    clearTimeout(timer)
  }
}

function resolveIfReady(resolve, found) {
  if (found) resolve(found)
}

/** Asks a child to end, and ends it when it has not after two seconds. */
async function stop(child, ended) {
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 2000)
  await ended
  clearTimeout(timer)
}

/** A program that `cargo xtask` built, by the environment variable in which it says where. */
export function builtProgram(variable) {
  const path = process.env[variable]
  if (!path) throw new Error(`${variable} is not set: start this through cargo xtask`)
  return path
}

/**
 * The web protection service with a development account and simulated check services.
 *
 * @param {{args?: string[], onRequest?: (entry: object) => void}} [options] `onRequest` gets each entry of its request log
 * @returns the account (`url`, `site_key`, `secret`, provider keys), `log` (all entries so far) and `stop`
 */
export async function startService({ args = [], onRequest = () => {} } = {}) {
  const log = []
  const program = await startProgram(
    'the web protection service',
    builtProgram('APPROOV_WEB_SERVICE'),
    [
      'serve',
      '--dev',
      '--json',
      '--log-json',
      ...(args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0']),
      ...args,
    ],
    {
      ready: (line) => (line.startsWith('{') ? JSON.parse(line) : undefined),
      onError(line) {
        if (!line.startsWith('{')) return
        const entry = JSON.parse(line)
        log.push(entry)
        onRequest(entry)
      },
    },
  )
  return { ...program, account: program.ready, url: program.ready.url, log }
}

/**
 * The protected API of the demo.
 *
 * @param {{secret: string, allowOrigin: string, onRequest?: (entry: object) => void}} options the account's secret
 *   (base64), the origin that may call; `onRequest` gets each entry of its request log
 */
export async function startProtectedApi({ secret, allowOrigin, onRequest = () => {} }) {
  const program = await startProgram(
    'the protected API',
    builtProgram('APPROOV_DEMO_API'),
    ['--listen', '127.0.0.1:0', '--secret', secret, '--allow-origin', allowOrigin],
    {
      ready: (line) => /listening on (http:\/\/\S+)/.exec(line)?.[1],
      onError(line) {
        if (line.startsWith('{')) onRequest(JSON.parse(line))
      },
    },
  )
  return { ...program, url: program.ready.replace(/\/$/, '') }
}

const TYPES = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
}

/**
 * A static site.
 *
 * @param {{mounts: Record<string, string>, routes?: Record<string, (request) => any>,
 *   headers?: object | ((request) => object), port?: number}} options `mounts`: URL prefix → directory, or URL → file;
 *   the longest that matches counts. `routes`: path → function that returns the response's body: what becomes JSON, or
 *   a string of HTML. `headers`: of every response, or what makes them of its request. `port` 0 is any free one.
 * @returns {Promise<{url: string, requests: string[], stop: () => Promise<void>}>} `requests`: method and URL of each, in order
 */
export async function serveSite({ mounts, routes = {}, headers = {}, port = 0 }) {
  const prefixes = Object.keys(mounts).sort((a, b) => b.length - a.length)
  const requests = []
  const server = createServer(async (request, response) => {
    requests.push(`${request.method} ${request.url}`)
    const begin = (status, extra = {}) =>
      response.writeHead(status, {
        'Cache-Control': 'no-store',
        ...(typeof headers === 'function' ? headers(request) : headers),
        ...extra,
      })
    try {
      const path = decodeURIComponent(new URL(request.url, 'http://site').pathname)
      if (Object.hasOwn(routes, path)) {
        const body = await routes[path](request)
        if (typeof body === 'string') begin(200, { 'Content-Type': TYPES['.html'] }).end(body)
        else begin(200, { 'Content-Type': TYPES['.json'] }).end(JSON.stringify(body))
        return
      }
      const file = await findFile(path, prefixes, mounts)
      if (!file) {
        begin(404, { 'Content-Type': 'text/plain' }).end('not found\n')
        return
      }
      begin(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' })
      createReadStream(file)
        .on('error', (error) => response.destroy(error))
        .pipe(response)
    } catch (error) {
      if (response.headersSent) response.destroy(error)
      else begin(error instanceof URIError ? 400 : 500, { 'Content-Type': 'text/plain' }).end(`${error.message}\n`)
    }
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', () => resolve(undefined))
  })
  const address = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function findFile(path, prefixes, mounts) {
  const prefix = prefixes.find((candidate) => path === candidate || path.startsWith(candidate.replace(/\/?$/, '/')))
  if (prefix === undefined) return undefined
  const place = mounts[prefix]
  const rest = normalize(path.slice(prefix.length)).replace(/^[/\\]+/, '')
  if (rest.split(sep).includes('..')) return undefined
  let file = rest === '.' || rest === '' ? place : join(place, rest)
  try {
    if ((await stat(file)).isDirectory()) file = join(file, 'index.html')
    return (await stat(file)).isFile() ? file : undefined
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw error
  }
}
