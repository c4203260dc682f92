import express from 'express'
import { approov } from 'approov-verify/express'

const { PUBLIC_URL: publicUrl, APPROOV_SECRET: secret, PAGE_ORIGIN } = process.env
const app = express()
app.use(approov({ publicUrl, secret, proof: 'required', serverNonces: 'required', cors: { origins: PAGE_ORIGIN } }))
app.use(express.json())
app.post('/order', (request, response) => response.json({ ordered: request.body, from: request.approov.claims.ip }))
app.listen(process.env.PORT ?? 8080, '127.0.0.1', function () {
  console.log(`listening on http://127.0.0.1:${this.address().port}`)
})
