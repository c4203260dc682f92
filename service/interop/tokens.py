"""Reads tokens of the service with jwcrypto: those of a passed check verify, the others do not."""

import base64
import json
import sys

from jwcrypto import jwe, jwk, jws


def octets(text):
    return jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(base64.b64decode(text)).rstrip(b"=").decode())


def read(token, kind, given):
    """The claims, or InvalidJWSSignature."""
    if kind.get("encrypted"):
        sealed = jwe.JWE(algs=["A256GCMKW", "A256GCM"])
        sealed.deserialize(token, octets(given["jwe_secret"]))
        assert sealed.jose_header["cty"] == "JWT"
        token = sealed.payload.decode()
    if "kid" in kind:
        key = jwk.JWK.from_pem(given["public_keys"][kind["kid"]].encode())
    else:
        key = octets(given["secret"])
    signed = jws.JWS()
    signed.allowed_algs = [kind["alg"]]
    signed.deserialize(token)
    signed.verify(key)
    return json.loads(signed.payload)


def main(path):
    with open(path) as file:
        given = json.load(file)
    count = 0
    for domain, kind in given["kinds"].items():
        claims = read(given["tokens"]["pass"][domain], kind, given)
        assert claims["embed"] and claims["cnf"]["jkt"] and claims["ip"], claims
        try:
            read(given["tokens"]["fail"][domain], kind, given)
        except jws.InvalidJWSSignature:
            count += 2
        else:
            raise SystemExit(f"{domain}: a token of a failed check verifies")
    print(f"{count} tokens read as they should")


main(sys.argv[1])
