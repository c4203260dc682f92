// Medians, tables for people, JSON for machines.
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem, type } from 'node:os'
import { join } from 'node:path'

/** The middle value. */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Half the distance between the quartiles, in percent of the median. */
export function spread(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.round(share * (sorted.length - 1)))]
  return Math.round((50 * (at(0.75) - at(0.25))) / median(sorted))
}

/** The last two cells of a row: the budget and whether it holds; empty where there is no budget. */
export function verdict(budget, holds, words) {
  return budget === undefined ? ['', ''] : [words, holds ? 'yes' : 'NO']
}

/** Where this runs. */
export function machine() {
  const processors = cpus()
  return {
    date: new Date().toISOString(),
    processor: processors[0]?.model ?? 'unknown',
    cores: processors.length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
    node: process.version,
  }
}

/** Prints rows in columns. */
export function table(head, rows) {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => String(row[column]).length)))
  const line = (row) => row.map((cell, column) => String(cell).padEnd(widths[column])).join('  ').trimEnd()
  console.log(`\n${line(head)}\n${widths.map((width) => '─'.repeat(width)).join('  ')}`)
  for (const row of rows) console.log(line(row))
  console.log()
}

/** Writes the raw numbers to the directory that `APPROOV_BENCH_RESULTS` names. */
export function writeResult(name, result) {
  const directory = process.env.APPROOV_BENCH_RESULTS
  if (!directory) return
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, `${name}.json`), `${JSON.stringify(result, null, 2)}\n`)
}
