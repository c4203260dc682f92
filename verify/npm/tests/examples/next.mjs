// app/order/route.js
import { approov } from 'approov-verify/next'

const { PUBLIC_URL: publicUrl, APPROOV_SECRET: secret } = process.env
const protect = approov({ publicUrl, secret, proof: 'required' })

export const POST = protect(async (request, { approov }) =>
  Response.json({ ordered: await request.json(), from: approov.claims.ip }),
)
