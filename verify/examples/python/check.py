"""Reads {"secret", "now"?, "options"?, "request"} as JSON from standard input and prints the verdict as JSON:
{"accepted": true, "claims", "proof"} or {"accepted": false, "challenge", "detail"}. For tests with real browsers."""

import json
import sys

from approov_verify import Refusal, Verifier

given = json.load(sys.stdin)
request = given["request"]
body, binding = (None if request.get(name) is None else request[name].encode() for name in ("body", "binding"))
try:
    claims, proof = Verifier(given["secret"], **given.get("options", {})).verify(
        request["method"], request["url"], request["headers"], body=body, binding=binding, now=given.get("now"))
    print(json.dumps({"accepted": True, "claims": claims, "proof": proof}))
except Refusal as refusal:
    print(json.dumps({"accepted": False, "challenge": refusal.challenge, "detail": str(refusal)}))
