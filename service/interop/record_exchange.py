"""Records the exchange that docs/PROTOCOL.md shows, with a key and proofs of jwcrypto, and writes it there.

Usage: python record_exchange.py [path of approov-web-service]

Run it when something on the wire changes. Port 8087 must be free: the proofs name it.
"""

import base64
import json
import pathlib
import re
import secrets
import socket
import subprocess
import sys
import time

from jwcrypto import jwk, jws

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROTOCOL = ROOT / "docs/PROTOCOL.md"
HOST = "127.0.0.1:8087"
URL = f"http://{HOST}/attest"
ORIGIN = "https://app.example"
SITE_KEY = "dev-approov-site-key"
KEY = jwk.JWK.generate(kty="EC", crv="P-256")
FORM = "content-type: application/x-www-form-urlencoded"


def public_key():
    public = KEY.export_public(as_dict=True)
    return {name: public[name] for name in ("kty", "crv", "x", "y")}


def proof(method, nonce=None):
    """Claims and the signed proof."""
    claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": URL, "iat": int(time.time())}
    if nonce:
        claims["nonce"] = nonce
    signed = jws.JWS(json.dumps(claims))
    # jwcrypto sorts the header's members; their order means nothing.
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public_key()}
    signed.add_signature(KEY, None, json.dumps(header), None)
    return claims, signed.serialize(compact=True)


def exchange(method, headers, body=""):
    """The request and the response as they went over the wire, and the response's headers and body."""
    lines = [f"{method} /attest HTTP/1.1", f"host: {HOST}", f"origin: {ORIGIN}", *headers]
    if body:
        lines += [FORM, f"content-length: {len(body)}"]
    sent = "\r\n".join([*lines, "", body])
    with socket.create_connection(("127.0.0.1", 8087), timeout=10) as stream:
        stream.sendall(sent.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += stream.recv(65536)
        head, rest = received.decode().split("\r\n\r\n", 1)
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        while len(rest) < int(fields.get("content-length", "0")):
            rest += stream.recv(65536).decode()
    shown = [text.replace("\r\n", "\n").rstrip("\n") for text in (sent, f"{head}\r\n\r\n{rest}")]
    return shown, fields, rest


def decoded(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def record():
    """What replaces the blocks of the document, in their order."""
    blocks, claims_shown = [], []

    def step(method, nonce=None, body="", response_only=False, signed=None):
        claims, token = signed or proof(method, nonce)
        shown, fields, text = exchange(method, [f"dpop: {token}"], body)
        blocks.extend(shown[1:] if response_only else shown)
        return claims, token, fields, text

    preflight = ["access-control-request-method: POST", "access-control-request-headers: content-type,dpop"]
    blocks.extend(exchange("OPTIONS", preflight)[0])
    claims, _, fields, _ = step("GET")
    claims_shown.append(claims)
    first = (
        f"api=api.example.com&approov-site-key={SITE_KEY}&payload=71tnS3rSq2lanEWrKz4MoexiOMtv7w0fspfM8BAQKNU"
        "&hcaptcha-site-key=10000000-ffff-ffff-ffff-000000000001"
        f"&hcaptcha-token=sim-pass-{secrets.token_hex(5)}.YXBwLmV4YW1wbGU"
    )
    used = proof("POST", fields["dpop-nonce"])
    claims, _, fields, text = step("POST", body=first, signed=used)
    claims_shown.append(claims)
    granted = json.loads(text)
    token_claims = decoded(granted["tokens"]["api.example.com"])
    refresh = (
        f"api=api.example.com&api=shapes.approov.io&approov-site-key={SITE_KEY}&refresh-token={granted['refresh-token']}"
    )
    claims, _, fields, _ = step("POST", fields["dpop-nonce"], refresh)
    claims_shown.append(claims)
    step("POST", body=first, signed=used, response_only=True)
    wrong = f"api=&api=unknown.example&approov-site-key={SITE_KEY}&hcaptcha-token=x"
    step("POST", "stale", wrong)
    return blocks, claims_shown, token_claims


def written(section, blocks, claims_shown, token_claims):
    blocks, claims_shown = iter(blocks), iter(claims_shown)
    section = re.sub(r"```http\n.*?\n```", lambda _: f"```http\n{next(blocks)}\n```", section, flags=re.S)
    section = re.sub(r'`\{"jti".*?\}`', lambda _: f"`{json.dumps(next(claims_shown))}`", section)
    section = re.sub(r'`\{"kty".*?\}`', lambda _: f"`{json.dumps(public_key())}`", section)
    section = re.sub(r"```json\n.*?\n```", lambda _: f"```json\n{json.dumps(token_claims, indent=2)}\n```", section, flags=re.S)
    assert next(blocks, None) is None and next(claims_shown, None) is None, "the document shows fewer steps"
    return section


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/approov-web-service"
    text = PROTOCOL.read_text()
    begin, end = text.index("## A session, from a real run"), text.index("## Refusals")
    section = text[begin:end]
    command = re.search(r"Recorded from `approov-web-service (.*?)`", section, re.S).group(1).split()
    service = subprocess.Popen([binary, *command, "--json", "--quiet"], stdout=subprocess.PIPE, text=True)
    try:
        service.stdout.readline()
        section = written(section, *record())
    finally:
        service.terminate()
        service.wait(timeout=30)
    PROTOCOL.write_text(text[:begin] + section + text[end:])


main()
