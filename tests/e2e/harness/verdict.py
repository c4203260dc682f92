"""Reads {"secret", "request": {"method", "target", "headers"}} as JSON from standard input, and prints the verdict of the PyPI
package as JSON. The argument is the public URL."""

import dataclasses
import json
import sys

from approov_verify import Verifier

given = json.load(sys.stdin)
verdict = Verifier(public_url=sys.argv[1], secret=given["secret"], proof="required").verify(**given["request"])
said = dataclasses.asdict(verdict)
del said["body"]
print(json.dumps(said))
