"""Checks a request's Approov token and DPoP proof. Copy this file; it needs nothing but joserfc.

    verifier = Verifier(secret=os.environ["APPROOV_SECRET"], proof="required")
    public_url = PublicUrl("https://api.example.com")
    claims, proof = verifier.verify(method, public_url.of_request(target), headers, body=body)

A Refusal is raised when a check fails:
  1. the token is signed with the account's secret and has not expired (and is of the required channel),
  2. the proof is signed by the key that it names, and that is the key that the token is bound to (cnf),
  3. the proof is for this method and URL (htm, htu), and was made just now (iat),
  4. the proof is for this token (ath),
  5. the proof is for this query and this body, when it says so (htq, msgs),
  6. the proof was not used before (jti), nor a nonce that was demanded.
"""

import base64
import hashlib
import heapq
import ipaddress
import json
import math
import re
import threading
import time

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
# The most keys that `Memory` holds for one session's key when it is half full.
MAX_KEYS_PER_HOLDER = 1000


class Refusal(Exception):
    """A request that must be refused. `challenge` is the error of the WWW-Authenticate header, "none" for no error."""

    def __init__(self, challenge, detail, status=401):
        super().__init__(detail)
        self.challenge, self.status = challenge, status

    @property
    def header(self):
        """The value of the WWW-Authenticate header of a response with status 401."""
        error = "" if self.challenge == "none" else f'error="{self.challenge}", '
        return f'DPoP {error}algs="ES256"'


class Verifier:
    """Made once, then shared by all threads.

    secret: the account's secret, base64 or base64url
    proof: when a request must carry a proof: "when-bound", "required" or "optional"
    channel: accept tokens of "web" or "mobile" only
    require_binding: refuse requests without binding data
    message: what to do about `msgs`: "when-present", "required" or "ignored"
    query: what to do about `htq`, since `htu` does not cover the query: "when-present", "required" or "ignored"
    nonce: what to do about `nonce`: "unique" accepts once what accept_nonce demands, and does not look at others;
        "required" demands one that was not used before; "ignored"
    accept_nonce: demands a nonce that this function accepts
    first_use: remembers keys and returns whether this use is the first: (key, until, now, holder) -> bool, in Unix
        seconds; several servers behind one URL must share what it remembers. holder is the thumbprint of the session's
        key, for a bound on what each may store
    """

    def __init__(self, secret, *, proof="when-bound", channel=None, require_binding=False, message="when-present",
                 query="when-present", nonce="unique", accept_nonce=None, leeway=5, max_proof_age=60, clock_skew=15,
                 nonce_ttl=600, first_use=None):
        key = _decode_secret(secret)
        if len(key) < 32:
            raise ValueError("the secret must have at least 32 bytes")
        self._key = OctKey.import_key(key)
        self._proof, self._channel, self._require_binding = proof, channel, require_binding
        self._message, self._query = message, query
        self._nonce, self._accept_nonce, self._nonce_ttl = nonce, accept_nonce, nonce_ttl
        self._leeway, self._max_proof_age, self._clock_skew = leeway, max_proof_age, clock_skew
        self._first_use = first_use or Memory()

    def verify(self, method, url, headers, body=None, binding=None, now=None):
        """Checks a request and returns the claims of its token and of its proof (None without one).

        url: as the client sees it, with its query, made by PublicUrl; never built from headers that the client controls,
            nor by adding the request target to a text. None: no proof is for it
        headers: pairs of name and value, so that repeated headers are seen
        body: bytes, as received; binding: bytes, what the token must be bound to by `pay`
        """
        now = time.time() if now is None else now
        token, by_scheme, proof = _presented(headers)
        claims = self._read_token(token, now)
        self._check_binding(claims, binding)
        bound = "cnf" in claims
        policy = "required" if by_scheme else self._proof
        if policy == "required" and not bound:
            raise Refusal("invalid_token", "the token is not bound to a key")
        if proof is None:
            _demand(policy == "optional" or not bound, "the request has no proof")
            return claims, None
        if not bound:
            raise Refusal("invalid_token", "the token is not bound to a key")

        proof, key = self._read_proof(proof)
        _demand(proof["htm"] == method, "the proof is for another method")
        _demand(is_same_url(proof["htu"], url), "the proof is for another URL")
        self._check_time(proof, now)
        self._check_nonce(proof.get("nonce"))
        _demand(proof.get("ath") == _base64url(_sha256(token.encode())), "the proof is for another token")
        thumbprint = key.thumbprint()
        _demand(thumbprint == claims["cnf"]["jkt"], "the token is bound to another key")
        if self._query != "ignored":
            self._check_query(proof.get("htq"), _query_of(url))
        if self._message != "ignored":
            self._check_message(proof.get("msgs"), body, key)

        # Longer than it is accepted here, for other servers whose clocks are behind.
        until = proof["iat"] + self._max_proof_age + self._clock_skew
        _demand(self._first_use(f"jti {thumbprint} {proof['jti']}", until, now, thumbprint), "the proof was used before")
        demanded = self._accept_nonce is not None
        if self._nonce == "required" or (self._nonce == "unique" and demanded):
            nonce = f"nonce {thumbprint} {json.dumps(proof['nonce'], sort_keys=True)}"
            if not self._first_use(nonce, now + self._nonce_ttl, now, thumbprint):
                raise Refusal("use_dpop_nonce" if demanded else "invalid_dpop_proof", "the nonce was used before")
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
        demand(isinstance(header.get("kid", ""), str), "the header kid is malformed")
        for claim in ("exp", "nbf", "iat"):
            demand(_is_date(claims.get(claim, None if claim == "exp" else 0)), f"the claim {claim} is missing or malformed")
        demand(_millis(claims["exp"]) + self._leeway * 1000 > now * 1000, "the token has expired")
        demand(_millis(claims.get("nbf", 0)) <= (now + self._leeway) * 1000, "the token is not valid yet")
        web, mobile = "embed" in claims, "did" in claims
        demand(isinstance(claims.get("embed", {}), dict), "the claim embed is malformed")
        demand(isinstance(claims.get("did", ""), str), "the claim did is malformed")
        demand(not (web and mobile), "the token is of two channels")
        cnf = claims.get("cnf", {"jkt": "A" * 43})
        demand(isinstance(cnf, dict) and _is_256_bits(cnf.get("jkt")), "the claim cnf is malformed")
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
            _demand(not jwk.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}, "the proof's key is private")
            _demand(_is_256_bits(jwk.get("x")) and _is_256_bits(jwk.get("y")), "the proof's key is malformed")
            operations = jwk.get("key_ops", ["verify"])
            for_verifying = jwk.get("use", "sig") == "sig" and jwk.get("alg", "ES256") == "ES256" and isinstance(operations, list)
            _demand(for_verifying and "verify" in operations, "the proof's key is for something else")
            key = ECKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "y")})
            return key

        try:
            _, claims = _read_jws(text, own_key, "ES256")
        except (JoseError, ValueError, TypeError, RecursionError) as cause:
            raise Refusal("invalid_dpop_proof", f"the proof is not good: {cause}") from cause
        for claim in ("jti", "htm", "htu"):
            _demand(_is_text(claims.get(claim)), f"the claim {claim} is missing or malformed")
        for claim in ("ath", "msgs", "htq"):
            _demand(claim not in claims or _is_text(claims[claim]), f"the claim {claim} is malformed")
        _demand(len(claims["jti"].encode()) <= 256, "the claim jti is too long")
        for claim in ("iat", "exp", "nbf"):
            _demand(_is_date(claims.get(claim, None if claim == "iat" else 0)), f"the claim {claim} is missing or malformed")
        return claims, key

    def _check_time(self, proof, now):
        ahead = (now + self._clock_skew) * 1000
        _demand(_millis(proof["iat"]) >= (now - self._max_proof_age) * 1000, "the proof is too old")
        _demand("exp" not in proof or _millis(proof["exp"]) > now * 1000, "the proof has expired")
        _demand(max(_millis(proof["iat"]), _millis(proof.get("nbf", 0))) <= ahead, "the proof was made in the future")

    def _check_nonce(self, nonce):
        if nonce is None and (self._accept_nonce or self._nonce == "required"):
            raise Refusal("use_dpop_nonce", "the proof has no nonce")
        if self._accept_nonce and not self._accept_nonce(nonce):
            raise Refusal("use_dpop_nonce", "the proof's nonce is not accepted")

    def _check_query(self, htq, query):
        if htq is None:
            _demand(self._query != "required" or not query, "the proof does not cover the query")
        else:
            _demand(htq == _base64url(_sha256(query.encode())), "the proof is for another query")

    def _check_message(self, msgs, body, key):
        if msgs is None:
            _demand(self._message != "required", "the proof does not cover the body")
            return
        _demand(body is not None, "the proof cannot be compared with a body")
        if msgs == _base64url(_sha256(body)):
            return
        raw = _decode_base64url(msgs) or b""
        _demand(len(raw) == 64, "the proof is for another body")
        signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        try:
            key.public_key.verify(signature, body, ECDSA(SHA256()))
        except InvalidSignature as cause:
            raise Refusal("invalid_dpop_proof", "the proof is for another body") from cause


class PublicUrl:
    """Where clients find this server, such as "https://api.example.com", with a path when a proxy in front takes it off.

    It comes from configuration, never from a request.
    """

    def __init__(self, text):
        base = _normal_url(text)
        if base is None:
            raise ValueError(f"{text!r} is not a URL such as https://api.example.com")
        (self._scheme, self._host, self._port, path) = base
        self._path = path.rstrip("/")

    def of_request(self, target):
        """The URL of a request from its target, as it was received; None for a target that can be read in two ways:
        one that does not begin with one slash, or has dot segments. Never join the two as text: with a target "m/" the text
        "https://api.example.co" becomes another server's URL."""
        if not re.fullmatch(r"/(?!/)[!-~]*", target) or "#" in target:
            return None
        url = f"{self._scheme}://{self._host}:{self._port}{self._path}{target}"
        # The joined text is read again, so that no target, whatever is in it, leads to another server.
        read = _normal_url(url, of_request=True)
        return url if read is not None and read[:3] == (self._scheme, self._host, self._port) else None


class Memory:
    """Remembers in this process. It forgets what has expired, and nothing else. From half of its capacity on, each
    session's key has a quota, which shrinks with the room that is left: one session cannot fill it for all others."""

    def __init__(self, capacity=1_000_000):
        self._capacity, self._kept, self._by_expiry, self._held = capacity, set(), [], {}
        self._lock = threading.Lock()

    def __call__(self, key, until, now, holder):
        with self._lock:
            while self._by_expiry and self._by_expiry[0][0] < now:
                _, expired, its_holder = heapq.heappop(self._by_expiry)
                self._kept.discard(expired)
                self._held[its_holder] -= 1
                if not self._held[its_holder]:
                    del self._held[its_holder]
            if key in self._kept:
                return False
            if len(self._kept) >= self._capacity:
                raise RuntimeError("the replay memory is full")
            if self._held.get(holder, 0) >= self._quota():
                raise Refusal("none", "the key has used too many proofs within a short time", status=429)
            self._kept.add(key)
            self._held[holder] = self._held.get(holder, 0) + 1
            heapq.heappush(self._by_expiry, (until, key, holder))
            return True

    def _quota(self):
        free = self._capacity - len(self._kept)
        if free * 2 >= self._capacity:
            return math.inf
        return max(1, min(MAX_KEYS_PER_HOLDER, self._capacity // 16) * free * 2 // self._capacity)


def _presented(headers):
    """Token, whether it came as `Authorization: DPoP …` (RFC 9449 section 7.1), and proof: each at most once."""
    def values(name):
        return [value for other, value in headers if other.lower() == name]

    tokens, authorization, proofs = values("approov-token"), values("authorization"), values("dpop")
    schemes = [re.match(r"dpop(?:\Z| +)", value, re.IGNORECASE | re.ASCII) for value in authorization]
    credentials = [value[scheme.end():] for value, scheme in zip(authorization, schemes) if scheme]
    if len(tokens) + len(credentials) > 1 or (credentials and len(authorization) > 1):
        raise Refusal("invalid_token", "the request has more than one token")
    _demand(len(proofs) < 2, "the request has more than one proof")
    if not tokens and not credentials:
        raise Refusal("none", "the request has no token")
    return (tokens + credentials)[0], bool(credentials), proofs[0] if proofs else None


_REGISTRY = JWSRegistry(algorithms=["HS256", "ES256"], strict_check_header=False)
_REGISTRY.max_header_length = MAX_PROOF


def _read_jws(text, key_for, algorithm):
    """The header and the claims of a JWS whose signature is good."""
    parts = [_decode_base64url(part) for part in text.split(".")]
    if len(parts) != 3 or None in parts:
        raise ValueError("it is not a compact JWS")
    header = _read_object(parts[0])
    if "crit" in header:
        raise ValueError("it demands an extension")
    if header.get("alg") != algorithm:
        raise ValueError("its algorithm is not accepted")
    signed = jws.extract_compact(text.encode(), registry=_REGISTRY)
    if not jws.validate_compact(signed, key_for(header), [algorithm], registry=_REGISTRY):
        raise ValueError("its signature does not match")
    return header, _read_object(parts[1])


def _read_object(content):
    """A JSON object without what other readers of JSON understand in another way or not at all."""
    value = json.loads(content.decode(), parse_constant=_refuse_constant, parse_int=_bounded_int, parse_float=_bounded_float)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    json.dumps(value, ensure_ascii=False).encode()  # half characters, written as \ud800, are no UTF-8
    return value


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def _bounded_float(digits):
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("it has a number beyond all bounds")
    return number


def _bounded_int(digits):
    _bounded_float(digits)
    return int(digits)


def _demand(fulfilled, otherwise):
    if not fulfilled:
        raise Refusal("invalid_dpop_proof", otherwise)


def _is_text(value):
    return isinstance(value, str) and value != ""


def _is_date(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def _millis(seconds):
    return int(min(seconds, 1e15) * 1000)


def _is_256_bits(value):
    return isinstance(value, str) and len(_decode_base64url(value) or b"") == 32


def _sha256(data):
    return hashlib.sha256(data).digest()


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode_base64url(text):
    """The bytes of unpadded base64url; each byte string has one spelling. None for anything else."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        return None
    content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return content if _base64url(content) == text else None


def _decode_secret(text):
    text = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"(?:([A-Za-z0-9._~!$&'()*+,;=-]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]*))?")
# Printable ASCII without a backslash, and each percent sign with its two digits.
_SEGMENT = re.compile(r"(?:[!-$&-\[\]-~]|%[0-9A-Fa-f]{2})*")


def is_same_url(htu, url):
    """Whether a proof's htu is the URL of a request, queries aside (RFC 9449 section 4.3, check 9)."""
    requested = _normal_url(url, of_request=True)
    return requested is not None and _normal_url(htu) == requested


def _normal_url(text, of_request=False):
    """Scheme, host, port and path of a URL in their normal form (RFC 3986 sections 6.2.2 and 6.2.3); None when there is
    none."""
    url = _URL.match(text or "")
    authority = url and _AUTHORITY.fullmatch(url[2])
    if not authority:
        return None
    scheme, (name, address, port) = url[1].lower(), authority.groups()
    try:
        host = name.lower() if name else f"[{ipaddress.IPv6Address(address)}]"
        port = int(port.lstrip("0") or "0") if port else {"http": 80, "https": 443}[scheme]
    except ValueError:
        return None
    path = _normal_path(url[3] or "/", of_request)
    return None if path is None or port > 65535 else (scheme, host, port, path)


def _normal_path(path, of_request):
    kept, ends_with_dot_segment = [], False
    for segment in path.split("/")[1:]:
        if not _SEGMENT.fullmatch(segment):
            return None
        segment = re.sub("%..", _normal_octet, segment)
        ends_with_dot_segment = segment in (".", "..")
        if ends_with_dot_segment and of_request:
            return None  # clients resolve dot segments before they send a request
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept + [""] * ends_with_dot_segment)


def _normal_octet(encoded):
    character = chr(int(encoded[0][1:], 16))
    return character if re.fullmatch("[A-Za-z0-9._~-]", character) else encoded[0].upper()


def _query_of(url):
    """The query of a URL without its question mark, as it was sent."""
    return url.partition("#")[0].partition("?")[2]
