"""A verifier, and what drives its engine."""

from __future__ import annotations

import inspect
import json
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ._engine import Check, Engine

_MAX_KEYS = 65_536
_FETCH_TIMEOUT = 5.0
_LISTS = {"vary", "access-control-expose-headers"}


@dataclass(frozen=True)
class Verdict:
    """What was found of a request."""

    ok: bool
    """Whether it may pass."""
    headers: dict[str, str]
    """For every response."""
    claims: dict[str, Any] = field(default_factory=dict)
    """Of the token, when the request is good."""
    proof: dict[str, Any] | None = None
    """The claims of the proof, when there was one."""
    channel: str = "unspecified"
    """"web", "mobile" or "unspecified"."""
    would_fail: str | None = None
    """What would have been refused if proofs were not only monitored."""
    status: int = 200
    """What to respond to a bad request: 401, or 429, 413, 500, 503; 204 for a preflight."""
    code: str | None = None
    """A stable name: "token_expired", "proof_url", …"""
    detail: str = ""
    """For the client."""
    log: str = ""
    """For logs."""
    challenge: str | None = None
    """The error of WWW-Authenticate; "none" where it has none."""
    body: bytes = b""
    """A problem document (RFC 9457)."""

    def response_headers(self) -> list[tuple[str, str]]:
        """Those that go with a response of the application."""
        if self.ok:
            return list(self.headers.items())
        own = {"Content-Type", "Cache-Control", "Retry-After"}
        return [(name, value) for name, value in self.headers.items() if name not in own]

    @classmethod
    def _read(cls, text: str) -> Verdict:
        said = json.loads(text)
        said["would_fail"] = said.pop("wouldFail", None)
        said["body"] = said.get("body", "").encode()
        return cls(**said)


class RedisStore:
    """Where several servers remember used proofs: Redis, by a client of the package redis (asyncio's too)."""

    def __init__(self, client: Any, prefix: str = "approov:replay:") -> None:
        self.client, self.prefix = client, prefix

    def send(self, words: list[bytes]) -> Any:
        return self.client.execute_command(*words)


def fetch_keys(url: str) -> str:
    """The text at a URL: no redirects, 5 seconds at most."""

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    with urllib.request.build_opener(NoRedirects).open(url, timeout=_FETCH_TIMEOUT) as response:
        text = response.read(_MAX_KEYS + 1)
    if len(text) > _MAX_KEYS:
        raise ValueError(f"more than {_MAX_KEYS} bytes")
    return text.decode()


Headers = Iterable[tuple[str, str]]
Body = bytes | None


class Verifier:
    """Checks requests: token, proof, binding, message, and that no proof comes twice. Made once, used by all threads.

    ``public_url`` is where clients find this server, such as ``https://api.example.com``, with a path if a proxy takes it off;
    it is never taken from a request. The other options are those of the Rust crate, as words: ``secret``, ``jwks``, ``pem``,
    ``jwks_url``, ``jwe_secret``, ``require_encryption``, ``algorithms``, ``issuer``, ``audience``, ``channel``, ``proof``
    ("when_bound", "required", "optional"), ``message`` and ``query`` ("when_present", "required", "ignored"), ``nonce``,
    ``server_nonces`` ("off", "offered", "required"), ``nonce_secret``, ``bound_to_header``, ``require_binding``,
    ``allow_debug_tokens``, ``token_header``, ``clock_leeway``, ``max_proof_age``, ``clock_skew`` (seconds), ``monitor_proofs``,
    ``capacity``, ``cors`` (a dict with ``origins`` and, if you like, ``methods``, ``headers``, ``expose``, ``credentials``,
    ``max_age``).

    ``monitor`` lets every request pass, with its verdict. ``on_refused`` is called with each refusal. Raises ValueError for
    options that cannot be used.
    """

    def __init__(
        self,
        *,
        store: RedisStore | None = None,
        body_limit: int = 1 << 20,
        monitor: bool = False,
        on_refused: Callable[[Verdict], None] | None = None,
        fetch_keys: Callable[[str], str] = fetch_keys,
        clock: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        if store is not None:
            options["redis_prefix"] = store.prefix
        given = {name: value for name, value in options.items() if value is not None}
        self._engine = Engine(json.dumps(given))
        self._store, self._clock, self._fetch_keys, self._on_refused = store, clock, fetch_keys, on_refused
        self._fetching = threading.Lock()
        self.body_limit, self.monitor = body_limit, monitor

    def verify(
        self,
        method: str,
        target: str | None = None,
        headers: Headers = (),
        body: Body | Callable[[], Body] = None,
        *,
        url: str | None = None,
        binding: str | None = None,
    ) -> Verdict:
        """Checks a request. ``target`` is the request target as it was received, such as ``/order?to=alice``; a ``url`` as the
        client sees it may take its place. Headers are those that were received, repeated ones repeatedly, one character for each
        byte. ``body`` is its bytes, or a function that reads them when a proof covers them and returns None when there are
        more than ``body_limit``."""
        request = self._request(method, target, headers, url, binding)
        now = self._clock() * 1000
        check = self._engine.start(request, now, False)
        while True:
            step, value = check.step()
            if step == "done":
                return self._verdict(value)
            if step == "keys":
                self._refresh_keys(value, now)
                check = self._engine.start(request, now, True)
            elif step == "body":
                read = body() if callable(body) else body
                if read is None:
                    return self._verdict(self._without_body(check, callable(body)))
                self._engine.body(check, read)
            else:
                self._reply(check, *_outcome(lambda: self._send(value)))

    async def verify_async(
        self,
        method: str,
        target: str | None = None,
        headers: Headers = (),
        body: Body | Callable[[], Awaitable[Body]] = None,
        *,
        url: str | None = None,
        binding: str | None = None,
    ) -> Verdict:
        """The same for asyncio: reading the body and asking Redis may be awaited, keys are fetched in a thread."""
        import asyncio

        request = self._request(method, target, headers, url, binding)
        now = self._clock() * 1000
        check = self._engine.start(request, now, False)
        while True:
            step, value = check.step()
            if step == "done":
                return self._verdict(value)
            if step == "keys":
                await asyncio.to_thread(self._refresh_keys, value, now)
                check = self._engine.start(request, now, True)
            elif step == "body":
                read = await body() if callable(body) else body
                if read is None:
                    return self._verdict(self._without_body(check, callable(body)))
                self._engine.body(check, read)
            else:
                try:
                    sent = self._send(value)
                    response, failure = int(await sent if inspect.isawaitable(sent) else sent), None
                except Exception as error:  # noqa: BLE001 - whatever a client raises means that Redis is unavailable
                    response, failure = None, _said(error)
                self._reply(check, response, failure)

    def admits(self, verdict: Verdict) -> bool:
        """Whether the application gets to see a request with this verdict. A body that is too long was not read to its end."""
        return verdict.ok or (self.monitor and verdict.status not in (204, 413))

    @staticmethod
    def _request(method: str, target: str | None, headers: Headers, url: str | None, binding: str | None) -> str:
        return json.dumps(
            {"method": method, "url": url, "target": target, "headers": [list(header) for header in headers], "binding": binding}
        )

    def _without_body(self, check: Check, read: bool) -> str:
        if read:
            return self._engine.refusal(check, 413, "body_too_large", "the body is too long to be checked")
        return self._engine.refusal(check, 500, "body_unread", "the request cannot be checked at the moment")

    def _verdict(self, text: str) -> Verdict:
        verdict = Verdict._read(text)
        if self._on_refused is not None and verdict.code != "preflight" and (not verdict.ok or verdict.would_fail):
            self._on_refused(verdict)
        return verdict

    def _send(self, words: list[bytes]) -> Any:
        if self._store is None:
            raise RuntimeError("there is no store")
        return self._store.send(words)

    def _reply(self, check: Check, response: int | None, failure: str | None) -> None:
        self._engine.reply(check, response, failure)

    def _refresh_keys(self, url: str, now: float) -> None:
        """One request for the keys at a time. Who comes while it runs waits for its end, and then has the new keys."""
        if not self._fetching.acquire(blocking=False):
            with self._fetching:
                return
        try:
            try:
                keys, failure = self._fetch_keys(url), None
            except Exception as error:  # noqa: BLE001 - the last good keys are used, whatever it was
                keys, failure = None, _said(error)
            problem = self._engine.keys(keys, failure, now)
        finally:
            self._fetching.release()
        if problem and self._on_refused is not None:
            self._on_refused(Verdict(ok=False, headers={}, status=503, code="keys_unavailable", log=problem))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _outcome(send: Callable[[], Any]) -> tuple[int | None, str | None]:
    try:
        return int(send()), None
    except Exception as error:  # noqa: BLE001 - whatever a client raises means that Redis is unavailable
        return None, _said(error)


def as_verifier(verifier: Verifier | None, options: dict[str, Any]) -> Verifier:
    return Verifier(**options) if verifier is None else verifier


def is_list(name: str) -> bool:
    """Whether a response may have this header from somebody else too, to which ours is added."""
    return name.lower() in _LISTS
