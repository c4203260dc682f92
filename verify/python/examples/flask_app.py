import os

from flask import Flask, request
from approov_verify.flask import Approov, verdict

app = Flask(__name__)
Approov(app, public_url=os.environ["PUBLIC_URL"], secret=os.environ["APPROOV_SECRET"], proof="required")


@app.post("/order")
def order():
    return {"ordered": request.json, "from": verdict.claims["ip"]}
