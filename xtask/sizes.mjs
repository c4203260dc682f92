// Prints the size of each script and WebAssembly file of a directory: as it is, after gzip, after brotli.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const directory = process.argv[2]
const brotli = (bytes) =>
  brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  })

const rows = readdirSync(directory)
  .filter((name) => /\.(js|wasm)$/.test(name))
  .sort()
  .map((name) => {
    const bytes = readFileSync(join(directory, name))
    return [name, bytes.length, gzipSync(bytes, { level: 9 }).length, brotli(bytes).length].map((cell) =>
      cell.toLocaleString('en'),
    )
  })

for (const row of [['file', 'bytes', 'gzip', 'brotli'], ...rows]) {
  console.log(row.map((cell, column) => (column === 0 ? cell.padEnd(20) : cell.padStart(10))).join(''))
}
