// Writes integrity.json into a directory: the subresource-integrity hash of each script and WebAssembly file in it.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const directory = process.argv[2]
const hash = (name) =>
  `sha384-${createHash('sha384')
    .update(readFileSync(join(directory, name)))
    .digest('base64')}`
const names = readdirSync(directory)
  .filter((name) => /\.(js|wasm)$/.test(name))
  .sort()
writeFileSync(
  join(directory, 'integrity.json'),
  `${JSON.stringify(Object.fromEntries(names.map((name) => [name, hash(name)])), null, 2)}\n`,
)
