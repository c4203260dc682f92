import fastify from 'fastify'
import { approov } from 'approov-verify/fastify'

const app = fastify()
app.register(approov, { publicUrl: process.env.PUBLIC_URL, secret: process.env.APPROOV_SECRET, proof: 'required' })
app.register(async (api) => {
  api.post('/order', async (request) => ({ ordered: request.body, from: request.approov.claims.ip }))
})
console.log(`listening on ${await app.listen({ port: Number(process.env.PORT ?? 8080) })}`)
