"""The PyPI package as a program for run.sh: python pypi.py."""

import json
import sys

from approov_verify import Verifier


def verdict(given):
    case, now = given["case"], given["now"]
    options = dict(case["config"])
    keys, jwe = options.pop("keys", "secret"), options.pop("jwe", False)
    if "accepted_nonce" in options:
        return "skip"
    if keys != "keyset":
        options["secret"] = given["secret"]
    if keys != "secret":
        options["jwks"] = given["jwks"]
    if jwe:
        options["jwe_secret"] = given["jwe_secret"]
    request = case["request"]
    verifier = Verifier(public_url=request.get("public_url", "https://unused.example"), clock=lambda: now, **options)

    def check(request):
        target = request.get("target")
        return verifier.verify(
            request["method"],
            target,
            # One character for each byte, as HTTP servers give the values of headers.
            [(name, value.encode().decode("latin-1")) for name, value in request["headers"]],
            None if request["body"] is None else request["body"].encode(),
            url=request.get("url") if target is None else None,
            binding=request["binding"],
        )

    for earlier in case["earlier"]:
        check(earlier)
    found = check(request)
    return "ok" if found.ok else found.code


for line in sys.stdin:
    print(verdict(json.loads(line)))
