"""An app for pages of other origins: protected by one line. Where it listens is where its clients find it."""

import os
from urllib.parse import urlsplit

import uvicorn
from approov_verify.fastapi import Approov, ApproovMiddleware
from fastapi import FastAPI

public_url, secret, pages = os.environ["PUBLIC_URL"], os.environ["APPROOV_SECRET"], os.environ["PAGES"]
app = FastAPI(on_startup=[lambda: print("listening", flush=True)])
app.add_middleware(
    ApproovMiddleware, public_url=public_url, secret=secret, proof="required", server_nonces="required", cors={"origins": pages}
)


@app.post("/order")
async def order(what: dict, approov: Approov):
    return {"ordered": what, "from": approov.claims["ip"]}


uvicorn.run(app, host="127.0.0.1", port=urlsplit(public_url).port, log_level="error")
