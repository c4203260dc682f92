"""The cases of verify/tests/data/cases.json, with the verdicts of the Rust library."""

import json
import unittest
from pathlib import Path

from approov_verify import Memory, Refusal, Verifier

FILE = json.loads((Path(__file__).parents[2] / "tests/data/cases.json").read_text())
MINE = [case for case in FILE["cases"] if "python" in case["runs"]]


def verifier_for(config):
    options = dict(config)
    if "accepted_nonce" in options:
        accepted = options.pop("accepted_nonce")
        options["accept_nonce"] = lambda nonce: nonce == accepted
    return Verifier(FILE["secret"], **options)


def verdict(verifier, request):
    body, binding = (None if request[name] is None else request[name].encode() for name in ("body", "binding"))
    try:
        verifier.verify(request["method"], request["url"], request["headers"], body=body, binding=binding, now=FILE["now"])
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
        self.assertGreater(sum(case["error"] is not None for case in MINE), 120)

    def test_a_full_memory_refuses_instead_of_forgetting(self):
        first_use = Memory(capacity=1)
        self.assertTrue(first_use("a", 100, 0))
        self.assertFalse(first_use("a", 100, 100))
        with self.assertRaises(RuntimeError):
            first_use("b", 200, 100)
        self.assertTrue(first_use("b", 200, 101))


if __name__ == "__main__":
    unittest.main()
