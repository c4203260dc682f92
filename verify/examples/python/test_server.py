"""server.py as a process, with requests over HTTP."""

import base64
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import JWSRegistry

PUBLIC_URL = "https://api.example.com"
SECRET = secrets.token_bytes(64)
REGISTRY = JWSRegistry(strict_check_header=False)


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Session:
    def __init__(self):
        self.key = ECKey.generate_key("P-256")
        claims = {"exp": int(time.time()) + 120, "embed": {}, "cnf": {"jkt": self.key.thumbprint()}}
        self.token = jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, OctKey.import_key(SECRET))

    def proof(self, url, body):
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": {name: self.key.as_dict(private=False)[name] for name in ("kty", "crv", "x", "y")}}
        claims = {"jti": secrets.token_hex(16), "htm": "POST", "htu": url, "iat": int(time.time()),
                  "ath": digest(self.token.encode()), "msgs": digest(body)}
        return jwt.encode(header, claims, self.key, registry=REGISTRY)


class Server(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        environment = {**os.environ, "APPROOV_SECRET": base64.b64encode(SECRET).decode(), "PUBLIC_URL": PUBLIC_URL, "PORT": "0"}
        script = Path(__file__).with_name("server.py")
        cls.process = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        cls.address = cls.process.stdout.readline().strip().removeprefix("listening on ")

    @classmethod
    def tearDownClass(cls):
        cls.process.kill()
        cls.process.wait()
        cls.process.stdout.close()

    def post(self, token, proof, body):
        request = urllib.request.Request(f"{self.address}/order?x=1", data=body, headers={"Approov-Token": token, "DPoP": proof})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer), None
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal), refusal.headers["WWW-Authenticate"]

    def test_a_good_request_is_answered_with_its_claims_and_its_proof_is_good_once(self):
        session = Session()
        proof = session.proof(f"{PUBLIC_URL}/order", b"two shapes")
        status, answer, _ = self.post(session.token, proof, b"two shapes")
        self.assertEqual((status, answer.get("proof", answer).get("htm")), (200, "POST"))
        status, _, challenge = self.post(session.token, proof, b"two shapes")
        self.assertEqual((status, challenge), (401, 'DPoP error="invalid_dpop_proof", algs="ES256"'))

    def test_another_body_another_server_and_another_token_are_refused(self):
        one, other = Session(), Session()
        for token, url, body in [
            (one.token, f"{PUBLIC_URL}/order", b"three"),
            (one.token, f"{self.address}/order", b"two"),
            (other.token, f"{PUBLIC_URL}/order", b"two"),
        ]:
            self.assertEqual(self.post(token, one.proof(url, b"two"), body)[0], 401)

    def test_a_body_beyond_the_limit_is_not_read(self):
        session = Session()
        request = urllib.request.Request(f"{self.address}/order", data=b"", headers={"Content-Length": str((1 << 20) + 1), "Approov-Token": session.token})
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=120)
        self.assertEqual(raised.exception.code, 413)
        raised.exception.close()


if __name__ == "__main__":
    unittest.main()
