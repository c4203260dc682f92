"""Middleware for Flask and whatever else speaks WSGI: ``app.wsgi_app = ApproovMiddleware(app.wsgi_app, …)``."""

from __future__ import annotations

import io
from http.client import responses
from typing import Any
from urllib.parse import quote

from ._verifier import Verdict, Verifier, as_verifier, is_list


class ApproovMiddleware:
    """Lets good requests pass, with their verdict in ``request.environ["approov"]``."""

    def __init__(self, app: Any, verifier: Verifier | None = None, **options: Any) -> None:
        self.app, self.verifier = app, as_verifier(verifier, options)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        limit = self.verifier.body_limit
        verdict = self.verifier.verify(
            environ["REQUEST_METHOD"], target(environ), headers(environ), lambda: read_body(environ, limit)
        )
        if not self.verifier.admits(verdict):
            body = b"" if verdict.status == 204 else verdict.body
            fields = list(verdict.headers.items())
            if verdict.status != 204:
                fields.append(("Content-Length", str(len(body))))
            start_response(f"{verdict.status} {responses.get(verdict.status, '')}", fields)
            return [body]
        environ["approov"] = verdict

        def respond(status: str, fields: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, _with(verdict, fields), *rest)

        return self.app(environ, respond)


def target(environ: dict[str, Any]) -> str:
    """As it was received, where the server says so. WSGI itself gives the path without its escapes."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw:
        return raw
    path = quote((environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1"), safe="/!$&'()*+,;=:@-._~")
    query = environ.get("QUERY_STRING", "")
    return f"{path}?{query}" if query else path


def headers(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """WSGI joins repeated headers with commas, so that two tokens are one bad token."""
    fields = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            fields.append((name.replace("_", "-"), environ[name]))
    return fields


def read_body(environ: dict[str, Any], limit: int) -> bytes | None:
    """The body, which can be read again afterwards. None when it is longer than the limit."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isascii() and length.isdigit():
        if int(length) > limit:
            return None
        body = stream.read(int(length))
    elif environ.get("wsgi.input_terminated"):
        body = stream.read(limit + 1)
        if len(body) > limit:
            return None
    else:
        # Without a length there is no body that WSGI could tell the end of.
        body = b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _with(verdict: Verdict, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for name, value in verdict.response_headers():
        if not is_list(name):
            fields = [(other, kept) for other, kept in fields if other.lower() != name.lower()]
        fields = [*fields, (name, value)]
    return fields
