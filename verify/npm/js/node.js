// What the middleware for Node's servers have in common.

/** A request of Node's http module as `Verifier.check` wants it. */
export function describe(request, target = request.originalUrl ?? request.url) {
  const headers = []
  for (let index = 0; index < request.rawHeaders.length; index += 2) {
    headers.push([request.rawHeaders[index], request.rawHeaders[index + 1]])
  }
  const { host, ':authority': authority } = request.headers
  if (host === undefined && authority !== undefined) headers.push(['Host', authority])
  return { method: request.method, target, headers }
}

/**
 * Reads a body to its end and puts it back, so that whatever reads it next gets the same bytes. Null when it is longer than the
 * limit; undefined when somebody else has read it.
 */
export function peekBody(request, limit) {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers
  if (request.readableEnded || request.readableDidRead) {
    return undefined
  }
  if (length !== undefined && Number(length) > limit) return null
  if (encoding === undefined && (length === undefined ? request.httpVersionMajor < 2 : Number(length) === 0)) {
    return new Uint8Array(0)
  }
  return new Promise((resolve, reject) => {
    const chunks = []
    let size = 0
    const settle = (action, value) => {
      request.off('readable', read).off('error', fail).off('close', fail).off('end', finish)
      action(value)
    }
    const fail = (error) => settle(reject, error ?? new Error('the body broke off'))
    const finish = () => settle(resolve, new Uint8Array(0))
    const read = () => {
      for (let chunk = request.read(); chunk !== null; chunk = request.read()) {
        size += chunk.length
        if (size > limit) return settle(resolve, null)
        chunks.push(chunk)
      }
      if (!request.complete) return
      const body = Buffer.concat(chunks, size)
      // Before the stream says that it has ended, which it does not while there is something in it.
      if (size > 0) request.unshift(body)
      settle(resolve, body)
    }
    request.on('readable', read).on('error', fail).on('close', fail).on('end', finish)
    read()
  })
}
