"""For FastAPI: ``app.add_middleware(ApproovMiddleware, …)``, and ``approov: Approov`` among the parameters of an endpoint."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ._verifier import Verdict
from .asgi import ApproovMiddleware


def verdict_of(request: Request) -> Verdict:
    """What the middleware found of this request."""
    return request.state.approov


Approov = Annotated[Verdict, Depends(verdict_of)]

__all__ = ["Approov", "ApproovMiddleware", "verdict_of"]
