"""Hostile pairs of URLs: the crate, the npm and the PyPI package must agree on whether a proof for the one is a proof for the
other. The pairs are random, but the same in each run."""

import http.client
import json
import os
import random
import subprocess
import threading
import unittest
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from approov_verify import Verifier, is_same_url
from support import OPTIONS, Session

VERIFY = Path(__file__).parents[2]
NPM_PACKAGE = os.environ.get("APPROOV_VERIFY_NPM", str(VERIFY.parent / "dist-verify/npm"))
PAIRS, TARGETS = 40_000, 20_000

SCHEMES = ["https", "https", "https", "http", "HTTPS", "hTTp", "ftp", "", "wss", " https", "https:"]
HOSTS = ["a", "A", "api.example.com", "API.example.com", "a.", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]",
         "[0:0:0:0:0:0:0:1]", "[::0001]", "[::ffff:1.2.3.4]", "[::ffff:102:304]", "[1::2::3]", "[::1%25eth0]", "[::g]", "[::1",
         "[::01.2.3.4]", "[1:2:3:4:5:6:7::]", "[00001::]", "u@a", "u:p@a", "@a", "a@", "b\u00fccher.example", "xn--bcher-kva.example",
         "a%61", "a\\", "a b", "", "a*", "a;b", "a,b", "-", "_", "~", "a\t", "a\n", "\uff41", "\u212a", "a\u00ad"]
PORTS = ["", "", "", "", ":", ":443", ":80", ":0443", ":00000000000000000080", ":8443", ":65535", ":65536", ":0", ":+80", ":8a",
         ":80:80", ": 80", ":\u0661", ":99999999999999999999", ":80\n"]
# What paths are made of: dot segments and their encodings, empty segments, encodings of all sorts, and other servers' syntax.
PIECES = ["/", "/", "/", "//", ".", "..", "%2e", "%2E", "%2e%2e", ".%2e", "a", "b", "A", "%61", "%41", "~", "%7e", "%7E", "%2f", "%2F",
          "%5c", "%", "%4", "%zz", "%00", "%25", "%252e", "%C3%A9", "%c3%a9", "\u00e9", "\\", ";", "..;", ";x=1", "*", "@", ":", "=", "&", "+",
          "%2b", "%20", " ", "\t", "\n", "\r", "\x00", "\x7f", "\x80", "\ud7ff", "|", "^", "`", "{", "}", "<", ">", '"', "[", "]", "'", "!", "$",
          "(", ")", ",", "-", "_", "...", "index.html", "%E2%80%AE", "\u202e"]
# Those of them that a request may have.
PLAIN = ["/", "/", "a", "b", "A", "%61", "~", "%7e", "%2f", "%2F", "%25", "%252e", "%C3%A9", "%c3%a9", ";", "..;", "=", "...", "[", "|", "_", "a.b"]
TAILS = ["", "", "", "?", "?x", "?/../y", "#", "#x", "?x#y", "#x?y", "??", "?#", "?\u00e9", "? ", "?%"]


class Urls:
    """Makes URLs, and others that are like them."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self.choice = self._random.choice

    def path(self):
        pieces = PLAIN if self._random.random() < 0.6 else PIECES
        return "/" * (self._random.random() < 0.9) + "".join(self._random.choices(pieces, k=self._random.randrange(7)))

    def origin(self):
        # Most are usable, or else hardly a pair would be accepted.
        usual = self._random.random() < 0.7
        return self.choice(["https://a", "http://a:8080", "https://[::1]"]) if usual else (
            self.choice(SCHEMES) + self.choice(["://", "://", "://", ":/", ":", "//", ":\\\\"]) + self.choice(HOSTS) + self.choice(PORTS))

    def pair(self):
        origin, path = self.origin(), self.path()
        return [origin + path + self.choice(TAILS), self.like(origin) + self.like(path) + self.choice(TAILS)]

    def target(self):
        base = self.choice(["https://a", "https://a/", "http://a:8080/v1", "http://A:80/v1/", "https://[0::1]/%7ev/.."])
        path = self.path()
        # Read as text and as parts, so that a joint between the two would be found.
        prefix = self.choice([base, base.rstrip("/"), self.like(base), self.origin()])
        glue = self.choice([""] * 20 + [".evil.example", ":8443", "@evil.example", "/", "//evil.example", "m", "https://a", "?", "#", "*"])
        return [prefix + self.like(glue + path) + self.choice(TAILS), base, glue + path + self.choice(TAILS)]

    def like(self, text):
        """The same text, or one that a reader could take for it."""
        change = self._random.randrange(12)
        if change < 4 or not text:
            return text
        position = self._random.randrange(len(text))
        before, character, after = text[:position], text[position], text[position + 1:]
        return before + {
            4: lambda: character.swapcase(),
            5: lambda: f"%{ord(character) % 256:02x}",
            6: lambda: f"%{ord(character) % 256:02X}",
            7: lambda: character + self.choice(["/.", "/x/..", "/%2e", "/./", "//", "/x/%2E%2e"]),
            8: lambda: "",
            9: lambda: character * 2,
            10: lambda: self.choice(PIECES),
            11: lambda: character + self.choice(["", "\t", "\n", "\u200b", " "]),
        }[change]() + after


def verdicts_of(command, pairs):
    said = subprocess.run(command, input=json.dumps(pairs), capture_output=True, text=True, check=False)
    if said.returncode != 0:
        raise RuntimeError(f"{command}: {said.stderr}")
    return json.loads(said.stdout)


# What a gate in front of a backend is asked (X-Forwarded-*), for which it has this public URL.
GATE_URL = "https://a"


class VerifierGate(BaseHTTPRequestHandler):
    """The PyPI package behind /forward-auth."""

    protocol_version = "HTTP/1.1"
    verifier = Verifier(**{**OPTIONS, "public_url": GATE_URL})

    def do_GET(self):
        method, target = self.headers["X-Forwarded-Method"], self.headers["X-Forwarded-Uri"]
        found = self.verifier.verify(method, target, [(name, value) for name, value in self.headers.items()])
        self.send_response(found.status)
        self.send_header("Content-Length", str(len(found.body)))
        self.end_headers()
        self.wfile.write(found.body)

    def log_message(self, *_):
        pass


def carried_by_http(target):
    """Whether the target can be the value of a header as it is."""
    return target != "" and all("!" <= character <= "~" for character in target)


def verdicts_by_http(host, port, pairs):
    """Whether a gate lets a proof for each htu pass for a request to the target."""
    session, connection = Session(), http.client.HTTPConnection(host, port, timeout=60)
    verdicts = []
    for htu, _, target in pairs:
        forwarded = {"Method": "GET", "Proto": "https", "Host": "a", "Uri": target}
        headers = {f"X-Forwarded-{name}": value for name, value in forwarded.items()}
        connection.request("GET", "/forward-auth", headers=headers | session.headers("GET", "", htu=htu))
        response = connection.getresponse()
        body = response.read()
        if response.status == 401:
            code = json.loads(body)["code"]
            # Anything else would be a refusal for another reason than the URL.
            if code not in ("proof_url", "proof_claim"):
                raise RuntimeError(f"{htu!r}, {target!r}: {code}")
        elif response.status not in (200, 204):
            raise RuntimeError(f"{htu!r}, {target!r}: {response.status} {body!r}")
        verdicts.append(response.status != 401)
    connection.close()
    return verdicts


class Agreement(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        urls = Urls(9449)
        cls.pairs = [urls.pair() for _ in range(PAIRS)] + [urls.target() for _ in range(TARGETS)]
        cls.python = [is_same_url(*pair) for pair in cls.pairs]

    def assert_agrees(self, command):
        verdicts = verdicts_of(command, self.pairs)
        self.assertEqual(len(verdicts), len(self.pairs))
        differing = [(pair, mine, other) for pair, mine, other in zip(self.pairs, self.python, verdicts) if mine != other]
        self.assertEqual(differing, [], f"{len(differing)} pairs: [pair], Python, the other")

    def test_node_agrees(self):
        self.assert_agrees(["node", str(VERIFY / "npm/tests/url_verdicts.mjs"), NPM_PACKAGE])

    def test_rust_agrees(self):
        manifest = str(VERIFY / "Cargo.toml")
        cargo = os.environ.get("CARGO", "cargo")
        self.assert_agrees([cargo, "run", "--quiet", "--manifest-path", manifest, "--example", "url_verdicts"])

    def assert_agrees_by_http(self, host, port):
        """The same for a face that is asked by HTTP, at /forward-auth. It has GATE_URL, and the secret of OPTIONS."""
        asked = [(pair, bool(mine)) for pair, mine in zip(self.pairs[PAIRS:], self.python[PAIRS:])
                 if pair[1].rstrip("/") == GATE_URL and carried_by_http(pair[2])]
        counts = Counter(mine for _, mine in asked)
        self.assertGreater(min(counts[True], counts[False]), 300, counts)
        verdicts = verdicts_by_http(host, port, [pair for pair, _ in asked])
        differing = [(pair, mine, other) for (pair, mine), other in zip(asked, verdicts) if mine != other]
        self.assertEqual(differing, [], f"{len(differing)} pairs: [pair], Python, the other")

    def test_python_agrees_by_http(self):
        with ThreadingHTTPServer(("127.0.0.1", 0), VerifierGate) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                self.assert_agrees_by_http(*server.server_address)
            finally:
                server.shutdown()

    # Another gate is a test here that starts it and calls assert_agrees_by_http with its address.

    def test_the_pairs_are_of_all_kinds(self):
        for kind, verdicts in [("pairs", self.python[:PAIRS]), ("targets", self.python[PAIRS:])]:
            counts = Counter(verdicts)
            self.assertGreater(counts[True], 1000, (kind, counts))
            self.assertGreater(counts[False], 1000, (kind, counts))
        self.assertGreater(Counter(self.python[PAIRS:])[None], 1000)
        # Most equal pairs are not equal as texts.
        equal = [pair for pair, same in zip(self.pairs[:PAIRS], self.python) if same]
        self.assertGreater(sum(one != other for one, other in equal), 1000)


if __name__ == "__main__":
    unittest.main()
