// An app for pages of other origins: protected by one line. Where it listens is where its clients find it.
import express from 'express'
import { approov } from 'approov-verify/express'

const { PUBLIC_URL: publicUrl, APPROOV_SECRET: secret, PAGES: origins } = process.env
const app = express()
app.use(approov({ publicUrl, secret, proof: 'required', serverNonces: 'required', cors: { origins } }))
app.use(express.json())
app.post('/order', (request, response) => response.json({ ordered: request.body, from: request.approov.claims.ip }))
app.listen(Number(new URL(publicUrl).port), '127.0.0.1', () => console.log('listening'))
