// Reads a JSON list of [htu, url] or [htu, public URL, request target] from standard input, and prints the verdicts of the package
// (its directory is the argument): whether a proof for the first is one for the request. For python/tests/test_agreement.py.
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'

const { isSameUrl } = await import(pathToFileURL(`${process.argv[2]}/index.js`).href)
console.log(JSON.stringify(JSON.parse(await text(process.stdin)).map((pair) => isSameUrl(...pair) ?? null)))
