// Serves the demo until Ctrl-C. Started by `cargo xtask demo`.
import { startDemo } from './demo.mjs'

const PORT = Number(process.env.PORT ?? 8080)

/** The demo on the usual port, or on any free one when that is taken. */
async function start() {
  const onRequest = (entry) => console.log(JSON.stringify(entry))
  try {
    return await startDemo({ port: PORT, onRequest })
  } catch (error) {
    if (error.code !== 'EADDRINUSE') throw error
    return startDemo({ port: 0, onRequest })
  }
}

const demo = await start()
console.log(`
  open this        ${demo.site.url}
  service          ${demo.service.url}
  protected API    ${demo.api.url}

Ctrl-C ends all three. The service's requests follow.
`)

let ending = false
async function end(code) {
  if (ending) return
  ending = true
  await demo.stop()
  process.exit(code)
}
process.on('SIGINT', () => end(0))
process.on('SIGTERM', () => end(0))
for (const part of [demo.service, demo.api]) {
  part.ended.then((how) => {
    if (!ending) console.error(`${part.name} ended (${how})`)
    return end(1)
  })
}
