// How many refresh requests one core serves, beside the bare signature check that each of them cannot do without.
// Started by `cargo xtask bench service`.
import { execFileSync } from 'node:child_process'

import { machine, table, verdict, writeResult } from './report.mjs'

const requests = process.env.APPROOV_BENCH === 'quick' ? 40_000 : 1_000_000
const said = execFileSync(
  process.env.APPROOV_LOAD,
  ['--json', '--requests', String(requests), '--service', process.env.APPROOV_WEB_SERVICE],
  { stdio: ['ignore', 'pipe', 'inherit'] },
)
const result = JSON.parse(said.toString().trim().split('\n').at(-1))
writeResult('service', { machine: machine(), ...result })

const { refresh_per_second: rate, es256_verifications_per_second: bare, ratio } = result
const [before, after] = [result.resident_mib_before, result.resident_mib_after]
table(['what', 'measured', 'against', 'budget', 'holds'], [
  ['refresh requests, one core', `${rate}/s`, `${ratio.toFixed(2)} × bare ES256 verification (${bare}/s)`, ...verdict(0.7, ratio >= 0.7, '≥ 0.70 ×')],
  ['  median and 99th percentile', `${result.p50_ms.toFixed(2)} ms, ${result.p99_ms.toFixed(2)} ms`, '', '', ''],
  [
    `resident memory, ${result.requests.toLocaleString('en')} requests later`,
    `${after.toFixed(1)} MiB`,
    `${before.toFixed(1)} MiB after the first of them`,
    ...verdict(1.1, after <= 1.1 * before, 'flat (≤ 1.10 ×)'),
  ],
])
