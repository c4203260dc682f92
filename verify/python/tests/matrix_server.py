"""A protected app for the table of backends: FRAMEWORK, with the options in the environment. Prints where it listens."""

import json
import os
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

OPTIONS = json.loads(os.environ["MATRIX_OPTIONS"])


def fastapi_app():
    from approov_verify.fastapi import ApproovMiddleware
    from fastapi import FastAPI

    app = FastAPI()
    app.add_middleware(ApproovMiddleware, **OPTIONS)

    @app.api_route("/order", methods=["GET", "POST"])
    async def order():
        return "ok"

    return app


def flask_app():
    from approov_verify.flask import Approov
    from flask import Flask

    app = Flask(__name__)
    Approov(app, **OPTIONS)
    app.add_url_rule("/order", view_func=lambda: "ok", methods=["GET", "POST"])
    return app


def order(request):
    from django.http import HttpResponse

    return HttpResponse("ok")


def django_app():
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.urls import path

    globals()["urlpatterns"] = [path("order", order)]
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["approov_verify.django.ApproovMiddleware"],
        APPROOV=OPTIONS,
    )
    django.setup()
    return get_wsgi_application()


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


def serve_wsgi(app):
    server = make_server("127.0.0.1", 0, app, server_class=Server, handler_class=Quiet)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def serve_asgi(app):
    import socket

    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if sys.argv[1] == "fastapi":
    serve_asgi(fastapi_app())
else:
    serve_wsgi({"flask": flask_app, "django": django_app}[sys.argv[1]]())
