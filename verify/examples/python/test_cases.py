"""The cases of verify/tests/data/cases.json, with the verdicts of the Rust library."""

import json
import unittest
from pathlib import Path

from approov_verify import Memory, PublicUrl, Refusal, Verifier

FILE = json.loads((Path(__file__).parents[2] / "tests/data/cases.json").read_text())
MINE = [case for case in FILE["cases"] if "python" in case["runs"]]


def verifier_for(config):
    options = dict(config)
    if "accepted_nonce" in options:
        accepted = options.pop("accepted_nonce")
        options["accept_nonce"] = lambda nonce: nonce == accepted
    return Verifier(FILE["secret"], **options)


def verdict(verifier, request):
    url = request.get("url")
    if "target" in request:
        url = PublicUrl(request["public_url"]).of_request(request["target"])
    body, binding = (None if request[name] is None else request[name].encode() for name in ("body", "binding"))
    try:
        verifier.verify(request["method"], url, request["headers"], body=body, binding=binding, now=FILE["now"])
    except Refusal as refusal:
        return refusal.challenge
    return None


class Cases(unittest.TestCase):
    def test_each_case_gets_its_verdict(self):
        for case in MINE:
            with self.subTest(case["name"]):
                verifier = verifier_for(case["config"])
                for earlier in case["earlier"]:
                    verdict(verifier, earlier)
                self.assertEqual(verdict(verifier, case["request"]), case["challenge"])

    def test_there_are_enough_hostile_cases(self):
        self.assertGreater(sum(case["error"] is not None for case in MINE), 270)

    def test_a_full_memory_refuses_instead_of_forgetting(self):
        first_use = Memory(capacity=1)
        self.assertTrue(first_use("a", 100, 0, "k"))
        self.assertFalse(first_use("a", 100, 100, "k"))
        with self.assertRaises(RuntimeError):
            first_use("b", 200, 100, "k")
        self.assertTrue(first_use("b", 200, 101, "k"))

    def test_one_session_cannot_fill_the_memory_for_all_others(self):
        first_use = Memory(capacity=2000)

        def flood(holder, until, now):
            for count in range(2001):
                try:
                    self.assertTrue(first_use(f"{holder} {count}", until, now, holder))
                except Refusal as refusal:
                    self.assertEqual(refusal.status, 429)
                    return count
            self.fail("nothing bounds what one session may store")

        self.assertEqual(flood("attacker", 100, 0), 1001)
        self.assertFalse(first_use("attacker 0", 100, 0, "attacker"))
        for holder in range(30):
            for count in range(10):
                self.assertTrue(first_use(f"{holder} {count}", 100, 0, holder))
        # When its keys have expired, it is served again.
        self.assertTrue(first_use("attacker 0", 300, 101, "attacker"))
        self.assertEqual(flood("other", 300, 101), 1000)

    def test_a_public_url_is_taken_with_a_slash_at_its_end_and_refused_when_it_is_none(self):
        self.assertEqual(PublicUrl("https://api.example.com/").of_request("/x?y"), "https://api.example.com:443/x?y")
        for text in ["", "api.example.com", "//api.example.com", "ftp://a/", "https://u@a/", "https://a/%"]:
            with self.assertRaises(ValueError):
                PublicUrl(text)


if __name__ == "__main__":
    unittest.main()
