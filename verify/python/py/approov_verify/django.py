"""Middleware for Django: ``"approov_verify.django.ApproovMiddleware"`` in ``MIDDLEWARE``, options in ``APPROOV``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig
from django.http import HttpRequest, HttpResponse

from . import asgi, wsgi
from ._verifier import Verdict, Verifier, is_list


class ApproovMiddleware:
    """Lets good requests pass, with ``request.approov``. Django keeps the body that is read here for whoever reads it next."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        options = getattr(settings, "APPROOV", None)
        if options is None:
            raise ImproperlyConfigured('the setting APPROOV is missing: {"secret": …, "public_url": …}')
        self.verifier = options if isinstance(options, Verifier) else Verifier(**options)
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self._call_async(request)
        verdict = self.verifier.verify(*_described(request), lambda: self._body(request))
        if not self.verifier.admits(verdict):
            return _refusal(verdict)
        request.approov = verdict
        return _with(verdict, self.get_response(request))

    async def _call_async(self, request: HttpRequest) -> Any:
        async def body() -> bytes | None:
            return await sync_to_async(self._body)(request)

        verdict = await self.verifier.verify_async(*_described(request), body)
        if not self.verifier.admits(verdict):
            return _refusal(verdict)
        request.approov = verdict
        return _with(verdict, await self.get_response(request))

    def _body(self, request: HttpRequest) -> bytes | None:
        try:
            body = request.body
        except RequestDataTooBig:
            return None
        return body if len(body) <= self.verifier.body_limit else None


def _described(request: HttpRequest) -> tuple[str, str, list[tuple[str, str]]]:
    scope = getattr(request, "scope", None)
    target = wsgi.target(request.META) if scope is None else asgi._target(scope)
    headers = wsgi.headers(request.META) if scope is None else [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    ]
    return request.method, target, headers


def _refusal(verdict: Verdict) -> HttpResponse:
    response = HttpResponse(b"" if verdict.status == 204 else verdict.body, status=verdict.status)
    for name, value in verdict.headers.items():
        response[name] = value
    return response


def _with(verdict: Verdict, response: HttpResponse) -> HttpResponse:
    for name, value in verdict.response_headers():
        response[name] = f"{response[name]}, {value}" if is_list(name) and name in response else value
    return response
