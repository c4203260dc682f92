// Reads a JSON list of [htu, url] or [htu, public URL, request target] from standard input, and prints the verdicts: whether a
// proof for the first is one for the request. For the test that compares the implementations (test_agreement.py).
import { text } from 'node:stream/consumers'
import { isSameUrl, publicUrl } from './verify.mjs'

function verdict([htu, base, target]) {
  if (target === undefined) return isSameUrl(htu, base)
  const url = publicUrl(base)(target)
  return url === null ? null : isSameUrl(htu, url)
}

console.log(JSON.stringify(JSON.parse(await text(process.stdin)).map(verdict)))
