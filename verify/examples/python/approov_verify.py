"""Checks a request's Approov token and DPoP proof. Copy this file; it needs nothing but joserfc.

    verifier = Verifier(secret=os.environ["APPROOV_SECRET"], proof="required")
    claims, proof = verifier.verify(method, url, headers, body=body)

A Refusal is raised when a check fails:
  1. the token is signed with the account's secret and has not expired (and is of the required channel),
  2. the proof is signed by the key that it names, and that is the key that the token is bound to (cnf),
  3. the proof is for this method and URL (htm, htu), and was made just now (iat),
  4. the proof is for this token (ath),
  5. the proof is for this body, when it says so (msgs),
  6. the proof was not used before (jti), nor its nonce.
"""

import base64
import hashlib
import heapq
import json
import math
import posixpath
import re
import threading
import time
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey
from joserfc.jws import JWSRegistry

MAX_TOKEN = 16_384
MAX_PROOF = 8192


class Refusal(Exception):
    """A request that must be refused. `challenge` is the error of the WWW-Authenticate header, "none" for no error."""

    def __init__(self, challenge, detail):
        super().__init__(detail)
        self.challenge = challenge

    @property
    def header(self):
        """The value of the WWW-Authenticate header of the response, whose status is 401."""
        error = "" if self.challenge == "none" else f'error="{self.challenge}", '
        return f'DPoP {error}algs="ES256"'


class Verifier:
    """Made once, then shared by all threads.

    secret: the account's secret, base64 or base64url
    proof: when a request must carry a proof: "when-bound", "required" or "optional"
    channel: accept tokens of "web" or "mobile" only
    require_binding: refuse requests without binding data
    message: what to do about `msgs`: "when-present", "required" or "ignored"
    nonce: what to do about `nonce`: "unique", "required" or "ignored"
    accept_nonce: demands a nonce that this function accepts
    first_use: remembers keys and returns whether this use is the first: (key, until, now) -> bool, in Unix seconds;
        several servers behind one URL must share what it remembers
    """

    def __init__(self, secret, *, proof="when-bound", channel=None, require_binding=False, message="when-present",
                 nonce="unique", accept_nonce=None, leeway=5, max_proof_age=60, clock_skew=15, nonce_ttl=600, first_use=None):
        key = _decode_secret(secret)
        if len(key) < 32:
            raise ValueError("the secret must have at least 32 bytes")
        self._key = OctKey.import_key(key)
        self._proof, self._channel, self._require_binding, self._message = proof, channel, require_binding, message
        self._nonce, self._accept_nonce, self._nonce_memory = nonce, accept_nonce, nonce_ttl
        self._leeway, self._proof_age, self._proof_future = leeway, max_proof_age, clock_skew
        self._first_use = first_use or Memory()

    def verify(self, method, url, headers, body=None, binding=None, now=None):
        """Checks a request and returns the claims of its token and of its proof (None without one).

        url: as the client sees it; never built from headers that the client controls
        headers: pairs of name and value, so that repeated headers are seen
        body: bytes, as received; binding: bytes, what the token must be bound to by `pay`
        """
        now = time.time() if now is None else now
        tokens, proofs = _values(headers, "approov-token"), _values(headers, "dpop")
        if not tokens:
            raise Refusal("none", "the request has no token")
        if len(tokens) > 1:
            raise Refusal("invalid_token", "the request has more than one token")
        _demand(len(proofs) < 2, "the request has more than one proof")

        claims = self._read_token(tokens[0], now)
        self._check_binding(claims, binding)
        bound = "cnf" in claims
        if self._proof == "required" and not bound:
            raise Refusal("invalid_token", "the token is not bound to a key")
        if not proofs:
            _demand(self._proof == "optional" or not bound, "the request has no proof")
            return claims, None
        if not bound:
            raise Refusal("invalid_token", "the token is not bound to a key")

        proof, key = self._read_proof(proofs[0])
        _demand(proof["htm"] == method, "the proof is for another method")
        url = _normal_url(url)
        _demand(url is not None and _normal_url(proof["htu"]) == url, "the proof is for another URL")
        self._check_time(proof, now)
        self._check_nonce(proof.get("nonce"))
        _demand(proof.get("ath") == _base64url(_sha256(tokens[0].encode())), "the proof is for another token")
        thumbprint = key.thumbprint()
        _demand(thumbprint == claims["cnf"]["jkt"], "the token is bound to another key")
        if self._message != "ignored":
            self._check_message(proof.get("msgs"), body, key)

        first = self._first_use(f"jti {thumbprint} {proof['jti']}", proof["iat"] + self._proof_age, now)
        _demand(first, "the proof was used before")
        if proof.get("nonce") is not None and self._nonce != "ignored":
            nonce = json.dumps(proof["nonce"], sort_keys=True)
            first = self._first_use(f"nonce {thumbprint} {nonce}", now + self._nonce_memory, now)
            _demand(first, "the nonce was used before")
        return claims, proof

    def _read_token(self, text, now):
        def demand(fulfilled, otherwise):
            if not fulfilled:
                raise Refusal("invalid_token", otherwise)

        demand(len(text) <= MAX_TOKEN, "the token is too long")
        try:
            header, claims = _read_jws(text, lambda _: self._key, "HS256")
        except (JoseError, ValueError, RecursionError) as cause:
            raise Refusal("invalid_token", f"the token is not good: {cause}") from cause
        typ = header.get("typ", "JWT")
        demand(isinstance(typ, str) and typ.upper() == "JWT", "the token's typ is not JWT")
        demand(_is_number(claims.get("exp")), "the claim exp is missing or malformed")
        demand(claims["exp"] + self._leeway > now, "the token has expired")
        demand(_is_number(claims.get("nbf", 0)), "the claim nbf is malformed")
        demand(claims.get("nbf", 0) <= now + self._leeway, "the token is not valid yet")
        web, mobile = "embed" in claims, "did" in claims
        demand(not web or isinstance(claims["embed"], dict), "the claim embed is malformed")
        demand(not mobile or isinstance(claims["did"], str), "the claim did is malformed")
        demand(not (web and mobile), "the token is of two channels")
        cnf = claims.get("cnf", {"jkt": ""})
        demand(isinstance(cnf, dict) and isinstance(cnf.get("jkt"), str), "the claim cnf is malformed")
        channel = "web" if web else "mobile" if mobile else "unspecified"
        demand(self._channel in (None, channel), f"tokens of the channel {channel} are not accepted")
        return claims

    def _check_binding(self, claims, binding):
        if binding is None:
            if self._require_binding:
                raise Refusal("invalid_token", "the request lacks the data that its token must be bound to")
            return
        if "pay" not in claims:
            raise Refusal("invalid_token", "the token is not bound to data")
        if claims["pay"] != base64.b64encode(_sha256(binding)).decode():
            raise Refusal("invalid_token", "the token is bound to other data")

    def _read_proof(self, text):
        _demand(len(text) <= MAX_PROOF, "the proof is too long")
        key = None

        def own_key(header):
            nonlocal key
            _demand(header.get("typ") == "dpop+jwt", "the proof's typ is not dpop+jwt")
            jwk = header.get("jwk")
            _demand(isinstance(jwk, dict), "the proof has no key")
            _demand(jwk.get("kty") == "EC" and jwk.get("crv") == "P-256", "the proof has no P-256 key")
            _demand("d" not in jwk, "the proof's key is private")
            key = ECKey.import_key(jwk)
            return key

        try:
            _, claims = _read_jws(text, own_key, "ES256")
        except (JoseError, ValueError, TypeError, RecursionError) as cause:
            raise Refusal("invalid_dpop_proof", f"the proof is not good: {cause}") from cause
        for claim in ("jti", "htm", "htu"):
            _demand(isinstance(claims.get(claim), str) and claims[claim], f"the claim {claim} is missing or malformed")
        _demand(len(claims["jti"]) <= 256, "the claim jti is too long")
        for claim in ("iat", "exp", "nbf"):
            _demand(_is_number(claims.get(claim, None if claim == "iat" else 0)), f"the claim {claim} is missing or malformed")
        return claims, key

    def _check_time(self, proof, now):
        _demand(proof["iat"] >= now - self._proof_age, "the proof is too old")
        _demand(proof.get("exp", math.inf) > now, "the proof has expired")
        _demand(max(proof["iat"], proof.get("nbf", 0)) <= now + self._proof_future, "the proof was made in the future")

    def _check_nonce(self, nonce):
        if nonce is None and (self._accept_nonce or self._nonce == "required"):
            raise Refusal("use_dpop_nonce", "the proof has no nonce")
        if self._accept_nonce and not self._accept_nonce(nonce):
            raise Refusal("use_dpop_nonce", "the proof's nonce is not accepted")

    def _check_message(self, msgs, body, key):
        if msgs is None:
            _demand(self._message != "required", "the proof does not cover the body")
            return
        _demand(isinstance(msgs, str) and body is not None, "the proof cannot be compared with a body")
        if msgs == _base64url(_sha256(body)):
            return
        _demand(re.fullmatch(r"[A-Za-z0-9_-]{86}", msgs), "the proof is for another body")
        raw = base64.urlsafe_b64decode(msgs + "==")
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        try:
            key.public_key.verify(signature, body, ECDSA(SHA256()))
        except InvalidSignature as cause:
            raise Refusal("invalid_dpop_proof", "the proof is for another body") from cause


class Memory:
    """Remembers in this process. It forgets what has expired, and fails rather than forget anything else."""

    def __init__(self, capacity=1_000_000):
        self._capacity, self._kept, self._by_expiry, self._lock = capacity, set(), [], threading.Lock()

    def __call__(self, key, until, now):
        with self._lock:
            while self._by_expiry and self._by_expiry[0][0] < now:
                self._kept.discard(heapq.heappop(self._by_expiry)[1])
            if key in self._kept:
                return False
            if len(self._kept) >= self._capacity:
                raise RuntimeError("the replay memory is full")
            self._kept.add(key)
            heapq.heappush(self._by_expiry, (until, key))
            return True


_REGISTRY = JWSRegistry(algorithms=["HS256", "ES256"], strict_check_header=False)
_REGISTRY.max_header_length = MAX_PROOF


def _read_jws(text, key_for, algorithm):
    """The header and the claims of a JWS whose signature is good."""
    signed = jws.extract_compact(text.encode(), registry=_REGISTRY)
    header = signed.headers()
    if "crit" in header:
        raise ValueError("it demands an extension")
    if header.get("alg") != algorithm:
        raise ValueError("its algorithm is not accepted")
    key = key_for(header)
    if not jws.validate_compact(signed, key, [algorithm], registry=_REGISTRY):
        raise ValueError("its signature does not match")
    claims = json.loads(signed.payload, parse_constant=_refuse_constant)
    if not isinstance(claims, dict):
        raise ValueError("its claims are not an object")
    return header, claims


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def _demand(fulfilled, otherwise):
    if not fulfilled:
        raise Refusal("invalid_dpop_proof", otherwise)


def _values(headers, name):
    return [value for other, value in headers if other.lower() == name]


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _sha256(data):
    return hashlib.sha256(data).digest()


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode_secret(text):
    text = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _normal_url(text):
    """Scheme, host, port and path, without query and fragment; None when there is no such URL."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    default = {"http": 80, "https": 443}.get(url.scheme)
    if default is None or not url.hostname or url.username is not None or url.password is not None:
        return None
    path = url.path or "/"
    if re.search(r"/\.{1,2}(/|$)", path):
        path = posixpath.normpath(path) + ("/" if re.search(r"/\.{0,2}$", path) else "")
    return url.scheme, url.hostname, default if port is None else port, path
