"""For Flask: ``Approov(app, …)``; the verdict is ``approov_verify.flask.verdict``."""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from werkzeug.local import LocalProxy

from ._verifier import Verdict, Verifier
from .wsgi import ApproovMiddleware


class Approov:
    """Protects all routes of an app."""

    def __init__(self, app: Flask, verifier: Verifier | None = None, **options: Any) -> None:
        app.wsgi_app = ApproovMiddleware(app.wsgi_app, verifier, **options)  # type: ignore[method-assign]


def _verdict() -> Verdict:
    return request.environ["approov"]


verdict: Verdict = LocalProxy(_verdict)  # type: ignore[assignment]
"""What was found of the current request."""
