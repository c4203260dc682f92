// An API behind one of the middleware, for the table of verdicts: node apps.mjs express|fastify|hono|next. Its options are in the
// variable APPROOV_OPTIONS, as JSON, named as in Python.
import { once } from 'node:events'
import { serve } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { approov as forExpress } from 'approov-verify/express'
import { approov as forFastify } from 'approov-verify/fastify'
import { approov as forHono } from 'approov-verify/hono'
import { approov as forNext } from 'approov-verify/next'
import { nodeServer } from '../support.mjs'

const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())
const given = Object.entries(JSON.parse(process.env.APPROOV_OPTIONS)).map(([name, value]) => [camel(name), value])
const options = { ...Object.fromEntries(given), proof: 'required' }
const ordered = (body, { claims }) => ({ ordered: body, from: claims.ip })

/** Each starts its server, on any port. */
const APPS = {
  express() {
    const app = express()
    app.use(forExpress(options))
    app.use(express.json())
    app.post('/order', (request, response) => response.json(ordered(request.body, request.approov)))
    return app.listen(0, '127.0.0.1')
  },
  async fastify() {
    const app = fastify()
    app.register(forFastify, options)
    app.register(async (api) => {
      api.post('/order', async (request) => ordered(request.body, request.approov))
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return app.server
  },
  hono() {
    const app = new Hono()
    app.use(forHono(options))
    app.post('/order', async (c) => c.json(ordered(await c.req.json(), c.get('approov'))))
    return serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
  },
  // A route handler, called as Next calls it.
  next() {
    const post = forNext(options)(async (request, { approov }) => Response.json(ordered(await request.json(), approov)))
    return nodeServer((request) => post(request, { params: Promise.resolve({}) })).listen(0, '127.0.0.1')
  },
}

const server = await APPS[process.argv[2]]()
if (!server.listening) await once(server, 'listening')
console.log(`listening on http://127.0.0.1:${server.address().port}`)
