import express from 'express'
import { approov } from 'approov-verify/express'

const app = express()
app.use(approov({ publicUrl: process.env.PUBLIC_URL, secret: process.env.APPROOV_SECRET, proof: 'required' }))
app.use(express.json())
app.post('/order', (request, response) => response.json({ ordered: request.body, from: request.approov.claims.ip }))
app.listen(process.env.PORT ?? 8080, '127.0.0.1', function () {
  console.log(`listening on http://127.0.0.1:${this.address().port}`)
})
