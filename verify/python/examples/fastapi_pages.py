import os

from fastapi import FastAPI
from approov_verify.fastapi import Approov, ApproovMiddleware

app = FastAPI()
approov = {"public_url": os.environ["PUBLIC_URL"], "secret": os.environ["APPROOV_SECRET"], "proof": "required"}
app.add_middleware(ApproovMiddleware, **approov, server_nonces="required", cors={"origins": os.environ["PAGE_ORIGIN"]})


@app.post("/order")
async def order(what: dict, approov: Approov):
    return {"ordered": what, "from": approov.claims["ip"]}
