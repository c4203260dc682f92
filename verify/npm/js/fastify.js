import { Readable } from 'node:stream'
import { addHeaders, createVerifier } from './index.js'
import { describe, peekBody } from './node.js'

/** A plugin that lets good requests pass, with `request.approov`. */
export async function approov(fastify, options) {
  const verifier = createVerifier(options)
  fastify.decorateRequest('approov', null)
  fastify.addHook('preParsing', async (request, reply, payload) => {
    let body
    const readBody = async () => {
      body =
        payload === request.raw
          ? await peekBody(request.raw, verifier.bodyLimit)
          : await readAll(payload, verifier.bodyLimit)
      return body
    }
    const verdict = await verifier.check({ ...describe(request.raw, request.originalUrl), readBody })
    if (!verifier.admits(verdict)) {
      const { status, headers, body } = /** @type {import('./index.js').Refused} */ (verdict)
      reply
        .code(status)
        .headers(headers)
        .send(status === 204 ? null : body)
      return
    }
    const append = (name, value) => {
      const before = reply.getHeader(name)
      reply.header(name, before === undefined ? value : `${before}, ${value}`)
    }
    addHeaders(verdict, append, (name, value) => reply.header(name, value))
    request.approov = verdict
    if (body === undefined || payload === request.raw) return payload
    const again = Readable.from([Buffer.from(body)], { objectMode: false })
    return Object.assign(again, { receivedEncodedLength: body.length })
  })
}
// Its hook is for the routes next to it, not only for those inside it.
approov[Symbol.for('skip-override')] = true

async function readAll(stream, limit) {
  const chunks = []
  let length = 0
  for await (const chunk of stream) {
    length += chunk.length
    if (length > limit) return null
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

export default approov
