"""A protected API: APPROOV_SECRET=… PUBLIC_URL=https://api.example.com python server.py"""

import json
import os
import re
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from approov_verify import PublicUrl, Refusal, Verifier

VERIFIER = Verifier(os.environ["APPROOV_SECRET"], proof="required")
# Configured: a Host header could name another server, for which a proof was stolen.
PUBLIC_URL = PublicUrl(os.environ["PUBLIC_URL"])
MAX_BODY = 1 << 20


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > MAX_BODY or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return self.respond(413, {"detail": "the body is too long"})
        body = self.rfile.read(int(length))
        # As it was received: self.path has its first slashes made one.
        target = self.requestline.split()[1]
        try:
            claims, proof = VERIFIER.verify(self.command, PUBLIC_URL.of_request(target), self.headers.items(), body=body)
        except Refusal as refusal:
            headers = {"WWW-Authenticate": refusal.header} if refusal.status == 401 else {}
            return self.respond(refusal.status, {"detail": str(refusal)}, headers)
        except Exception:
            traceback.print_exc()
            return self.respond(500, {"detail": "the request cannot be checked at the moment"})
        return self.respond(200, {"claims": claims, "proof": proof})

    do_GET = do_POST

    def respond(self, status, value, headers=None):
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
