"""server.py as a process, with requests over HTTP."""

import base64
import hashlib
import json
import os
import secrets
import socket
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

    def proof(self, url, body, **more):
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": {name: self.key.as_dict(private=False)[name] for name in ("kty", "crv", "x", "y")}}
        claims = {"jti": secrets.token_hex(16), "htm": "POST", "htu": url, "iat": int(time.time()),
                  "ath": digest(self.token.encode()), "msgs": digest(body), **more}
        return jwt.encode(header, claims, self.key, registry=REGISTRY)


class Server(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        environment = {**os.environ, "APPROOV_SECRET": base64.b64encode(SECRET).decode(), "PUBLIC_URL": f"{PUBLIC_URL}/", "PORT": "0"}
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
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response), None
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal), refusal.headers["WWW-Authenticate"]

    def test_a_good_request_gets_its_claims_and_its_proof_is_good_once(self):
        session = Session()
        proof = session.proof(f"{PUBLIC_URL}/order", b"two shapes")
        status, response, _ = self.post(session.token, proof, b"two shapes")
        self.assertEqual((status, response.get("proof", response).get("htm")), (200, "POST"))
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

    def status_of(self, target, headers):
        """The status of a request whose target is sent as it is, which urllib would not do."""
        host, _, port = self.address.removeprefix("http://").partition(":")
        lines = {"Host": "api.example.com", "Content-Length": "0", "Connection": "close", **headers}
        with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rwb") as stream:
            head = f"POST {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            stream.write(f"{head}\r\n".encode())
            stream.flush()
            return int(stream.read().split()[1])

    def test_no_target_leads_to_another_server_or_to_another_path_than_it_seems(self):
        session = Session()
        for target, htu, status in [
            ("/order", f"{PUBLIC_URL}/order", 200),
            ("/order?to=x", f"{PUBLIC_URL}/order", 200),
            (".evil.example/order", f"{PUBLIC_URL}.evil.example/order", 401),
            ("pany/order", f"{PUBLIC_URL}pany/order", 401),
            (":8443/order", f"{PUBLIC_URL}:8443/order", 401),
            ("m://order", f"{PUBLIC_URL}m://order", 401),
            ("https://evil.example/order", "https://evil.example/order", 401),
            (f"{PUBLIC_URL}/order", f"{PUBLIC_URL}/order", 401),
            ("//evil.example/order", "https://evil.example/order", 401),
            ("//order", f"{PUBLIC_URL}/order", 401),
            ("/public/../order", f"{PUBLIC_URL}/order", 401),
            ("/public/%2e%2e/order", f"{PUBLIC_URL}/order", 401),
            ("*", f"{PUBLIC_URL}*", 401),
        ]:
            with self.subTest(target):
                headers = {"Approov-Token": session.token, "DPoP": session.proof(htu, b"")}
                self.assertEqual(self.status_of(target, headers), status)

    def test_the_token_is_taken_from_authorization_too_and_the_query_is_compared_when_the_proof_covers_it(self):
        session = Session()
        authorization = {"Authorization": f"DPoP {session.token}"}
        for target, headers, status in [
            ("/order?to=alice", authorization, 200),
            ("/order?to=mallory", authorization, 401),
            ("/order?to=alice", {**authorization, "Approov-Token": session.token}, 401),
            ("/order?to=alice", {"Authorization": f"Bearer {session.token}"}, 401),
        ]:
            with self.subTest(target):
                proof = session.proof(f"{PUBLIC_URL}/order", b"", htq=digest(b"to=alice"))
                self.assertEqual(self.status_of(target, {**headers, "DPoP": proof}), status)

    def test_absurd_numbers_get_a_response(self):
        session = Session()
        huge = int("1" + "0" * 400)
        for headers, status in [
            ({"DPoP": session.proof(f"{PUBLIC_URL}/order", b"", iat=huge)}, 401),
            ({"DPoP": session.proof(f"{PUBLIC_URL}/order", b"", exp=huge)}, 401),
            ({"DPoP": session.proof(f"{PUBLIC_URL}/order", b"", iat=1e308)}, 401),
            ({"Content-Length": "9" * 5000}, 413),
            ({"Content-Length": "-1"}, 413),
        ]:
            self.assertEqual(self.status_of("/order", {"Approov-Token": session.token, **headers}), status)

    def test_a_server_with_an_unusable_public_url_does_not_start(self):
        environment = {**os.environ, "APPROOV_SECRET": base64.b64encode(SECRET).decode(), "PUBLIC_URL": "api.example.com", "PORT": "0"}
        ended = subprocess.run([sys.executable, Path(__file__).with_name("server.py")], env=environment, capture_output=True, text=True, check=False)
        self.assertIn("'api.example.com' is not a URL such as https:", ended.stderr)
        self.assertNotEqual(ended.returncode, 0)

    def test_a_body_beyond_the_limit_is_not_read(self):
        session = Session()
        request = urllib.request.Request(f"{self.address}/order", data=b"", headers={"Content-Length": str((1 << 20) + 1), "Approov-Token": session.token})
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request, timeout=10)
        self.assertEqual(raised.exception.code, 413)
        raised.exception.close()


if __name__ == "__main__":
    unittest.main()
