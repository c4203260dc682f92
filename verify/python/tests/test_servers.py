"""The same requests to each framework, without a network between, and to a real server."""

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import django
import httpx
import pytest
from approov_verify.asgi import ApproovMiddleware
from approov_verify.fastapi import Approov as Found
from approov_verify.flask import Approov
from approov_verify.flask import verdict as flask_verdict
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import re_path
from fastapi import FastAPI, Request
from flask import Flask
from flask import request as flask_request
from support import OPTIONS, Session

ORIGIN = "https://app.example.com"
options = {**OPTIONS, "cors": {"origins": [ORIGIN]}, "server_nonces": "offered"}
MAX = 1 << 20


def seen(path, body, verdict):
    return {"path": path, "body": body.decode(), "ip": verdict.claims.get("ip"), "code": verdict.code}


def fastapi_app(**more):
    app = FastAPI()
    app.add_middleware(ApproovMiddleware, **options, **more)

    @app.api_route("/order", methods=["GET", "POST"])
    async def order(request: Request, approov: Found):
        return seen(request.url.path, await request.body(), approov)

    return app


def flask_app(**more):
    app = Flask(__name__)
    Approov(app, **options, **more)

    @app.route("/order", methods=["GET", "POST"])
    def order():
        return seen(flask_request.path, flask_request.get_data(), flask_verdict)

    return app


def django_order(request):
    return JsonResponse(seen(request.path, request.body, request.approov))


urlpatterns = [re_path("^order$", django_order)]


def configure_django(**more):
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=__name__,
            MIDDLEWARE=["approov_verify.django.ApproovMiddleware"],
            DATA_UPLOAD_MAX_MEMORY_SIZE=4 * MAX,
        )
        django.setup()
    settings.APPROOV = {**options, **more}


def django_wsgi(**more):
    configure_django(**more)
    return get_wsgi_application()


def django_asgi(**more):
    configure_django(**more)
    return get_asgi_application()


APPS = {
    "FastAPI": (fastapi_app, httpx.ASGITransport),
    "Flask": (flask_app, None),
    "Django": (django_wsgi, None),
    "Django by ASGI": (django_asgi, httpx.ASGITransport),
}


class Client:
    """Requests to an app, each with its own connection."""

    def __init__(self, app, transport):
        self._app, self._transport = app, transport

    def request(self, method, path, headers=None, content=b""):
        request = {"headers": headers or {}, "content": content}
        if self._transport is None:
            # As servers of WSGI join repeated headers, and httpx does not.
            merged = {}
            for name, value in httpx.Headers(headers or {}).multi_items():
                merged[name] = f"{merged[name]},{value}" if name in merged else value
            request["headers"] = merged
            with httpx.Client(transport=httpx.WSGITransport(self._app), base_url="http://10.0.0.1") as client:
                return client.request(method, path, **request)

        async def run():
            async with httpx.AsyncClient(transport=self._transport(self._app), base_url="http://10.0.0.1") as client:
                return await client.request(method, path, **request)

        return asyncio.run(run())


@pytest.fixture(params=APPS)
def client(request):
    make, transport = APPS[request.param]
    return Client(make(), transport)


def test_a_good_request_reaches_the_handler_with_its_claims_and_body(client):
    session, body = Session(), "zwei \u00e9".encode()
    for covered in (body, None):
        response = client.request("POST", "/order?x=1", session.headers("POST", "/order", covered), body)
        assert response.status_code == 200, response.text
        assert response.json() == {"path": "/order", "body": body.decode(), "ip": "192.0.2.1", "code": None}


def test_another_body_method_path_a_replay_no_token_and_no_proof_are_refused(client):
    session = Session()
    mine = session.headers("POST", "/order", b"two")

    def verdict(headers, method="POST", body=b"two", path="/order"):
        response = client.request(method, path, headers, body)
        return "ok" if response.status_code == 200 else response.json()["code"]

    assert verdict(mine, body=b"three") == "message_mismatch"
    assert verdict(mine, method="GET", body=b"") == "proof_method"
    assert verdict(session.headers("POST", "/orders", b"two")) == "proof_url"
    assert verdict({**mine, "Approov-Token": Session().token}) == "proof_token_hash"
    assert verdict(mine) == "ok"
    assert verdict(mine) == "proof_replayed"
    assert verdict({**mine, "X-Forwarded-Host": "evil.example"}) == "proof_replayed"
    assert verdict({"Approov-Token": session.token}) == "proof_missing"
    assert verdict({}) == "token_missing"


def test_a_body_beyond_the_limit_is_refused(client):
    body = b"x" * (MAX + 1)
    response = client.request("POST", "/order", Session().headers("POST", "/order", body), body)
    assert response.status_code == 413


def test_two_tokens_or_two_proofs_are_refused(client):
    session = Session()
    headers = [*session.headers("GET", "/order").items(), ("Approov-Token", Session().token)]
    assert client.request("GET", "/order", headers).status_code == 401
    headers = [*session.headers("GET", "/order").items(), ("DPoP", session.proof("GET", "/order"))]
    assert client.request("GET", "/order", headers).status_code == 401


def test_preflights_need_no_token_and_pages_of_the_origin_can_read_refusals_and_the_nonce(client):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "dpop"}
    allowed = client.request("OPTIONS", "/order", {"Origin": ORIGIN, **asked})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "DPoP" in allowed.headers["access-control-allow-headers"]
    other = client.request("OPTIONS", "/order", {"Origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in other.headers
    # What only looks like a preflight is none.
    assert client.request("OPTIONS", "/order", {"Origin": ORIGIN}).status_code == 401
    for headers, status in [({}, 401), (Session().headers("GET", "/order"), 200)]:
        response = client.request("GET", "/order", {"Origin": ORIGIN, **headers})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "DPoP-Nonce, WWW-Authenticate" in response.headers["access-control-expose-headers"]
        assert len(response.headers["dpop-nonce"]) > 40
        if status == 401:
            assert response.headers["www-authenticate"].startswith("DPoP ")
            assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", APPS)
def test_middleware_that_monitors_lets_everything_pass_and_says_why_it_would_not_have(name):
    make, transport = APPS[name]
    refused = []
    client = Client(make(monitor=True, on_refused=lambda verdict: refused.append(verdict.code)), transport)
    assert client.request("GET", "/order").json()["code"] == "token_missing"
    assert client.request("GET", "/order", Session().headers("GET", "/order")).json()["code"] is None
    assert refused == ["token_missing"]


EXAMPLES = Path(__file__).parents[1] / "examples"
ENV = {**os.environ, "APPROOV_SECRET": OPTIONS["secret"], "PUBLIC_URL": OPTIONS["public_url"], "PYTHONPATH": str(EXAMPLES)}


def test_the_programs_in_the_guide_are_those_that_are_tested_here():
    guide = (Path(__file__).parents[3] / "docs/BACKENDS.md").read_text()
    blocks = re.findall("^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert sorted(blocks) == sorted(path.read_text() for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["uvicorn", "fastapi_app:app", "--port", "0"],
        ["flask", "--app", "flask_app", "run", "--port", "0"],
        ["django", "runserver", "--settings", "django_settings", "--noreload", "127.0.0.1:0"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_programs_in_the_guide_serve_a_good_request_once(arguments):
    command = [sys.executable, "-u", "-m", *arguments]
    with subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            body = json.dumps({"shapes": 2}).encode()
            headers = {**Session().headers("POST", "/order", body), "Content-Type": "application/json"}

            def post(target="/order"):
                request = urllib.request.Request(address + target, body, headers)
                try:
                    with urllib.request.urlopen(request) as response:
                        return response.status, json.load(response)
                except urllib.error.HTTPError as error:
                    return error.code, json.load(error)

            assert post("/%6frder?x") == (200, {"ordered": {"shapes": 2}, "from": "192.0.2.1"})
            assert post()[1]["code"] == "proof_replayed"
            headers |= Session().headers("POST", "/order", body)
            assert post("/public/%2e%2e/order")[1]["code"] == "proof_url"
        finally:
            server.terminate()
