"""A browser session as the SDK makes it."""

import base64
import hashlib
import json
import time
import uuid

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

PUBLIC_URL = "https://api.example.com"
SECRET = b"s" * 64
OPTIONS = {"public_url": PUBLIC_URL, "secret": base64.b64encode(SECRET).decode(), "proof": "required"}


def sha256(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Session:
    def __init__(self, **claims):
        self._key = ECKey.generate_key("P-256")
        self._jwk = {name: self._key.as_dict(private=False)[name] for name in ("kty", "crv", "x", "y")}
        thumbprint = sha256(json.dumps(self._jwk, sort_keys=True, separators=(",", ":")).encode())
        claims = {"exp": int(time.time()) + 120, "ip": "192.0.2.1", "embed": {}, "cnf": {"jkt": thumbprint}, **claims}
        self.token = jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, OctKey.import_key(SECRET))

    def proof(self, method, path, body=None, **more):
        claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": PUBLIC_URL + path, "iat": int(time.time()),
                  "ath": sha256(self.token.encode()), **more}
        if body is not None:
            claims["msgs"] = sha256(body)
        return jwt.encode({"alg": "ES256", "typ": "dpop+jwt", "jwk": self._jwk}, claims, self._key)

    def headers(self, *request, **more):
        return {"Approov-Token": self.token, "DPoP": self.proof(*request, **more)}
