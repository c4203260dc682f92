import asyncio
import threading

import pytest
import redis
import redis.asyncio
from approov_verify import RedisStore, Verdict, Verifier
from joserfc import jwt
from joserfc.jwk import ECKey
from support import OPTIONS, PUBLIC_URL, Session


def code(verdict: Verdict):
    return "ok" if verdict.ok else verdict.code


def test_a_good_request_yields_the_claims_of_token_and_proof():
    session = Session()
    verifier = Verifier(**OPTIONS)
    headers = session.headers("POST", "/order", b"two")
    verdict = verifier.verify("POST", "/order?x=1", headers.items(), b"two")
    assert verdict.ok and verdict.channel == "web"
    assert verdict.claims["ip"] == "192.0.2.1"
    assert verdict.proof["htu"] == f"{PUBLIC_URL}/order"
    assert code(verifier.verify("POST", "/order", headers.items(), b"two")) == "proof_replayed"


def test_a_body_is_read_only_when_a_proof_covers_it_and_a_missing_one_is_this_server_s_fault():
    session, verifier, read = Session(), Verifier(**OPTIONS), []

    def body():
        read.append(1)
        return b"two"

    assert verifier.verify("POST", "/order", session.headers("POST", "/order").items(), body).ok
    assert not read
    assert verifier.verify("POST", "/order", session.headers("POST", "/order", b"two").items(), body).ok
    assert read
    unread = verifier.verify("POST", "/order", session.headers("POST", "/order", b"two").items())
    assert (unread.status, unread.code) == (500, "body_unread")
    too_long = verifier.verify("POST", "/order", session.headers("POST", "/order", b"two").items(), lambda: None)
    assert (too_long.status, too_long.code) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"public_url": "api.example.com"}, "is not a URL such as https"),
        ({"secret": "short"}, "secret"),
        ({"proofs": "required"}, "unknown option `proofs`"),
        ({"proof": "always"}, "proof must be one of when_bound"),
        ({"secret": None}, "needs a secret or a keyset"),
        ({"jwks_url": "http://service.example/jwks.json"}, "https"),
        ({"cors": {"origins": "*", "credentials": True}}, "allows every origin"),
        ({"clock_skew": -1}, "clock_skew must be seconds"),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_a_message_that_names_them(options, message):
    with pytest.raises(ValueError, match=message):
        Verifier(**{**OPTIONS, **options})


def test_a_header_that_is_not_of_bytes_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="no bytes"):
        Verifier(**OPTIONS).verify("GET", "/", [("Approov-Token", "\u20ac")])


class Keys:
    """An issuer, and a clock that the test moves."""

    def __init__(self):
        self.now, self.fetched, self.published = 1_800_000_000.0, 0, []
        self.keys = {kid: ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new")}
        self.verifier = Verifier(
            public_url=PUBLIC_URL,
            jwks_url="https://service.example/site/jwks.json",
            fetch_keys=self.fetch,
            clock=lambda: self.now,
        )

    def fetch(self, url):
        import json

        self.fetched += 1
        if self.published is None:
            raise OSError("unavailable")
        return json.dumps({"keys": [self.keys[kid].as_dict(private=False) for kid in self.published]})

    def headers(self, kid):
        claims = {"exp": int(self.now) + 100_000}
        return [("Approov-Token", jwt.encode({"alg": "ES256", "kid": kid}, claims, self.keys[kid]))]

    def check(self, kid):
        return code(self.verifier.verify("GET", "/", self.headers(kid)))


def test_keys_at_a_url_are_fetched_again_for_an_unknown_kid_once_a_minute_and_used_for_a_day():
    issuer = Keys()
    issuer.published = ["old"]
    assert [issuer.check("old"), issuer.check("old"), issuer.check("new")] == ["ok", "ok", "token_unknown_key"]
    issuer.published = ["old", "new"]
    assert issuer.check("new") == "token_unknown_key"
    assert issuer.fetched == 1
    issuer.now += 60
    assert issuer.check("new") == "ok"
    assert issuer.fetched == 2
    issuer.published = None
    issuer.now += 23 * 3600
    assert issuer.check("old") == "ok"
    issuer.now += 3600
    assert issuer.check("old") == "keys_unavailable"


def test_threads_that_come_while_the_first_keys_are_fetched_wait_for_them():
    issuer = Keys()
    issuer.published = ["old"]
    reached, release, plain = threading.Event(), threading.Event(), issuer.fetch

    def slow(url):
        reached.set()
        release.wait()
        return plain(url)

    issuer.verifier._fetch_keys = slow
    headers, said = issuer.headers("old"), []
    threads = [threading.Thread(target=lambda: said.append(code(issuer.verifier.verify("GET", "/", headers)))) for _ in range(4)]
    threads[0].start()
    reached.wait()
    for thread in threads[1:]:
        thread.start()
    release.set()
    for thread in threads:
        thread.join()
    assert said == ["ok"] * 4
    assert issuer.fetched == 1


def test_a_proof_is_good_once_at_all_servers_that_share_redis(redis_socket):
    async def run():
        sync, client = redis.Redis(unix_socket_path=redis_socket), redis.asyncio.Redis(unix_socket_path=redis_socket)
        one, other = Verifier(store=RedisStore(sync), **OPTIONS), Verifier(store=RedisStore(client), **OPTIONS)
        for turn in range(20):
            headers = list(Session().headers("GET", "/order").items())
            said = [one.verify("GET", "/order", headers), await other.verify_async("GET", "/order", headers)]
            if turn % 2:
                headers = list(Session().headers("GET", "/order").items())
                said = [await other.verify_async("GET", "/order", headers), one.verify("GET", "/order", headers)]
            assert [code(verdict) for verdict in said] == ["ok", "proof_replayed"]
        await client.aclose()

    asyncio.run(run())


def test_nothing_is_accepted_while_redis_is_unavailable_and_clients_learn_nothing_of_it():
    refused = []
    store = RedisStore(redis.Redis(unix_socket_path="/nowhere/redis.sock"))
    verifier = Verifier(store=store, on_refused=refused.append, **OPTIONS)
    verdict = verifier.verify("GET", "/order", Session().headers("GET", "/order").items())
    assert (verdict.status, verdict.code) == (503, "replay_store")
    assert b"Connection" not in verdict.body
    assert "ConnectionError" in refused[0].log
