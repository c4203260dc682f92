"""Middleware for FastAPI, Starlette and whatever else speaks ASGI: ``app.add_middleware(ApproovMiddleware, …)``."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ._verifier import Verdict, Verifier, as_verifier, is_list


class ApproovMiddleware:
    """Lets good requests pass, with their verdict in ``request.state.approov``. Lifespan events pass; websockets are checked like
    requests, by their opening request, whose method is GET."""

    def __init__(self, app: Any, verifier: Verifier | None = None, **options: Any) -> None:
        self.app, self.verifier = app, as_verifier(verifier, options)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self.verifier.body_limit)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        method = scope.get("method", "GET")
        verdict = await self.verifier.verify_async(method, _target(scope), headers, body.read)
        if not self.verifier.admits(verdict):
            await _refuse(verdict, scope, send)
            return
        scope.setdefault("state", {})["approov"] = verdict

        async def respond(message: dict[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message = {**message, "headers": _with(verdict, list(message.get("headers", [])))}
            await send(message)

        await self.app(scope, body.receive, respond)


class _Body:
    """A body that can be read, and is then received again as it was."""

    def __init__(self, receive: Any, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._messages: list[dict[str, Any]] = []

    async def read(self) -> bytes | None:
        chunks, length = [], 0
        while True:
            message = await self._receive()
            self._messages.append(message)
            if message["type"] != "http.request":
                raise ConnectionError("the body broke off")
            chunk = message.get("body", b"")
            length += len(chunk)
            if length > self._limit:
                return None
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def receive(self) -> dict[str, Any]:
        return self._messages.pop(0) if self._messages else await self._receive()


def _target(scope: dict[str, Any]) -> str:
    """As it was received. Servers give the path without its escapes too, from which it cannot be had back."""
    raw = scope.get("raw_path")
    path = raw.decode("latin-1").split("?", 1)[0] if raw else quote(scope["path"], safe="/!$&'()*+,;=:@-._~")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _with(verdict: Verdict, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    for name, value in verdict.response_headers():
        key = name.lower().encode()
        if not is_list(name):
            headers = [(other, kept) for other, kept in headers if other.lower() != key]
        headers.append((key, value.encode("latin-1")))
    return headers


async def _refuse(verdict: Verdict, scope: dict[str, Any], send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": verdict.detail})
        return
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in verdict.headers.items()]
    body = b"" if verdict.status == 204 else verdict.body
    if verdict.status != 204:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": verdict.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
