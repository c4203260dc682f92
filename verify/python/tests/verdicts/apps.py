"""An API behind one of the middleware, for the table of verdicts (npm/tests/verdicts.test.mjs): python apps.py fastapi|django|flask.
Its options are in the variable APPROOV_OPTIONS, as JSON."""

import json
import os
import socket
import sys

options = {**json.loads(os.environ["APPROOV_OPTIONS"]), "proof": "required"}


def ordered(body, verdict):
    return {"ordered": body, "from": verdict.claims["ip"]}


def announce(port):
    print(f"listening on http://127.0.0.1:{port}", flush=True)


def run_fastapi():
    import uvicorn
    from approov_verify.fastapi import Approov, ApproovMiddleware
    from fastapi import FastAPI

    app = FastAPI()
    app.add_middleware(ApproovMiddleware, **options)

    @app.post("/order")
    async def order(what: dict, approov: Approov):
        return ordered(what, approov)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        # Connections wait from here on, until the server takes them.
        listener.listen(64)
        announce(listener.getsockname()[1])
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def run_flask():
    from approov_verify.flask import Approov, verdict
    from flask import Flask, request
    from werkzeug.serving import make_server

    app = Flask(__name__)
    Approov(app, **options)

    @app.post("/order")
    def order():
        return ordered(request.json, verdict)

    server = make_server("127.0.0.1", 0, app, threaded=True)
    announce(server.server_port)
    server.serve_forever()


# Django finds the view by the name of this module.
urlpatterns = []


def run_django():
    import django
    from django.conf import settings
    from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path

    middleware = ["approov_verify.django.ApproovMiddleware"]
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=middleware, APPROOV=options)
    django.setup()

    def order(request):
        return JsonResponse(ordered(json.loads(request.body), request.approov))

    urlpatterns.append(path("order", order))
    server = ThreadedWSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(get_wsgi_application())
    announce(server.server_port)
    server.serve_forever()


{"fastapi": run_fastapi, "django": run_django, "flask": run_flask}[sys.argv[1]]()
