"""One verification of token and proof: the package, and the same checks by hand with PyJWT. Prints the rounds as JSON, in µs."""

import json
import time

import jwt
from approov_verify import Verifier
from support import OPTIONS, PUBLIC_URL, SECRET, Session, sha256

ROUNDS, REQUESTS = 7, 150
session, verifier, used = Session(), Verifier(**OPTIONS), set()


def ours(headers):
    return verifier.verify("POST", "/order", headers.items()).ok


def by_hand(headers):
    """What people write: no limits on what is remembered, URLs compared as text."""
    claims = jwt.decode(headers["Approov-Token"], SECRET, algorithms=["HS256"])
    header = jwt.get_unverified_header(headers["DPoP"])
    jwk = {name: header["jwk"][name] for name in ("crv", "kty", "x", "y")}
    proof = jwt.decode(headers["DPoP"], jwt.PyJWK(jwk, "ES256").key, algorithms=["ES256"])
    good = (
        header["typ"] == "dpop+jwt"
        and claims["cnf"]["jkt"] == sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode())
        and (proof["htm"], proof["htu"]) == ("POST", PUBLIC_URL + "/order")
        and proof["ath"] == sha256(headers["Approov-Token"].encode())
        and abs(time.time() - proof["iat"]) < 60
        and proof["jti"] not in used
    )
    used.add(proof["jti"])
    return good


subjects = {"ours (PyPI)": ours, "PyJWT by hand (Python)": by_hand}
rounds = {name: [] for name in subjects}
for number in range(-1, ROUNDS):
    for name, check in subjects.items():
        given = [session.headers("POST", "/order") for _ in range(REQUESTS)]
        begin = time.perf_counter()
        for headers in given:
            if not check(headers):
                raise SystemExit(f"{name} refused a good request")
        # The first round warms up.
        if number >= 0:
            rounds[name].append((time.perf_counter() - begin) * 1e6 / REQUESTS)
print(json.dumps(rounds))
