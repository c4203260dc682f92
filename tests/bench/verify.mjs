// Reads what `cargo bench -p approov-verify` measured. Started by `cargo xtask bench verify`.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import { machine, table, writeResult } from './report.mjs'

const directory = process.env.APPROOV_CRITERION
const results = {}
for (const { name } of readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory() && entry.name !== 'report')) {
  const read = (file) => JSON.parse(readFileSync(join(directory, name, 'new', file), 'utf8'))
  const { title } = read('benchmark.json')
  const { median } = read('estimates.json')
  const { lower_bound: lower, upper_bound: upper } = median.confidence_interval
  results[title] = { nanoseconds: median.point_estimate, lower, upper }
}
writeResult('verify', { machine: machine(), results })
table(
  ['what', 'each', 'per second'],
  Object.entries(results).map(([title, { nanoseconds, lower, upper }]) => [
    title,
    `${(nanoseconds / 1000).toFixed(2)} µs (${(lower / 1000).toFixed(2)} to ${(upper / 1000).toFixed(2)})`,
    Math.round(1e9 / nanoseconds).toLocaleString('en'),
  ]),
)
