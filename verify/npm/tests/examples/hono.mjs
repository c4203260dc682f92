import { Hono } from 'hono'
import { approov } from 'approov-verify/hono'

const { PUBLIC_URL: publicUrl, APPROOV_SECRET: secret } = process.env
const app = new Hono()
app.use(approov({ publicUrl, secret, proof: 'required' }))
app.post('/order', async (c) => c.json({ ordered: await c.req.json(), from: c.get('approov').claims.ip }))
export default app
