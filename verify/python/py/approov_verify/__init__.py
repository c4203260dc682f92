"""Checks Approov tokens and DPoP proofs in a backend: one call, every check, one verdict."""

from ._engine import is_same_url
from ._verifier import RedisStore, Verdict, Verifier

__all__ = ["RedisStore", "Verdict", "Verifier", "is_same_url"]
