"""Tokens of a real issuer, a process: taken where they are its own and for us, refused in every other case."""

import asyncio
import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from rheostat_server.callers import tokens
from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.file import read_policy
from rheostat_server.callers.shelf import Shelf
from rheostat_server.errors import IssuerUnavailable, Unauthorized
from tests.server.callers.files import write
from tools.processes import free_port, started, wait_until_ready

PEOPLE = ({"sub": "alice", "groups": ["staff", "kids"]}, {"sub": "bob", "groups": ["guests"]})


@dataclass(frozen=True, slots=True)
class RealIssuer:
    """An OpenID Connect provider that signs in whoever is named."""

    url: str

    def token(self, person: str, *, audience: str = "rheostat") -> str:
        """An identity token, by the code flow that a browser would follow."""
        back = "http://127.0.0.1/back"
        asked = {"client_id": audience, "redirect_uri": back, "response_type": "code", "scope": "openid profile groups"}
        with httpx.Client(base_url=self.url) as http:
            redirect = http.post("/oauth2/authorize", params=asked, data={"sub": person})
            code = httpx.URL(redirect.headers["location"]).params["code"]
            grant = {"grant_type": "authorization_code", "code": code, "redirect_uri": back}
            told: str = http.post("/oauth2/token", data=grant, auth=(audience, "any")).json()["id_token"]
        return told


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Generator[RealIssuer]:
    log = tmp_path_factory.mktemp("issuer") / "issuer.log"
    port = free_port()
    people = [part for person in PEOPLE for part in ("--user-claims", json.dumps(person))]
    with started(["oidc-provider-mock", "--port", str(port), *people], log=log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, f"{url}{tokens.DISCOVERY}", log=log)
        yield RealIssuer(url)


def shelf_of(folder: Path, url: str, **more: str) -> Shelf:
    text = f"""\
    envelopes: {{children: {{safety: {{min: 0.8}}}}, lab: }}
    oidc:
      issuer: {url}
      audience: {more.get("audience", "rheostat")}
      claims:
        - {{claim: groups, value: kids, envelope: children}}
        - {{claim: sub, value: carol, envelope: lab}}
    """
    return Shelf.read(write(folder, text), Defaults())


async def test_a_token_of_the_issuer_has_the_envelope_of_its_claim(issuer: RealIssuer, tmp_path: Path) -> None:
    caller = await shelf_of(tmp_path, issuer.url).caller_of(f"Bearer {issuer.token('alice')}")
    assert (caller.name, caller.policy.envelope.name, caller.admin) == ("alice", "children", False)


async def test_a_token_without_a_fitting_claim_has_no_envelope(issuer: RealIssuer, tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="none of the claims that give an envelope: groups=kids, sub=carol"):
        await shelf_of(tmp_path, issuer.url).caller_of(f"Bearer {issuer.token('bob')}")


async def test_a_token_for_somebody_else_is_refused(issuer: RealIssuer, tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="Audience doesn't match"):
        await shelf_of(tmp_path, issuer.url).caller_of(f"Bearer {issuer.token('alice', audience='another')}")


def forged(issuer: RealIssuer, change: dict[str, Any], *, key: Any = None, algorithm: str = "RS256") -> str:
    claims = jwt.decode(issuer.token("alice"), options={"verify_signature": False}) | change
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key or rsa.generate_private_key(65537, 2048), algorithm=algorithm)


async def test_forged_tokens_are_refused(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, issuer.url)
    header, payload, signature = issuer.token("alice").split(".")
    other_payload = issuer.token("bob").split(".")[1]
    [public] = httpx.get(f"{issuer.url}/jwks").json()["keys"]
    for token in (
        forged(issuer, {}),
        forged(issuer, {}, key=public["n"], algorithm="HS256"),
        jwt.encode({"sub": "alice"}, key="", algorithm="none"),
        f"{header}.{other_payload}.{signature}",
        f"{header}.{payload}.",
    ):
        with pytest.raises(Unauthorized):
            await shelf.caller_of(f"Bearer {token}")
    with pytest.raises(Unauthorized, match="the key is not known here"):
        await shelf.caller_of("Bearer a.b.c")


async def test_time_and_issuer_are_checked(issuer: RealIssuer, tmp_path: Path) -> None:
    """With a key of our own in the place of the issuer's, so that the signature is right."""
    own = rsa.generate_private_key(65537, 2048)
    shelf = shelf_of(tmp_path, issuer.url)
    await shelf.caller_of(f"Bearer {issuer.token('alice')}")
    assert shelf.issuer is not None
    told = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    shelf.issuer.keys = {"": jwt.PyJWK(told, algorithm="RS256")}
    assert (await shelf.caller_of(f"Bearer {forged(issuer, {}, key=own)}")).name == "alice"
    long_ago, soon = time.time() - 3600, time.time() + 3600
    for change in (
        {"exp": long_ago},
        {"exp": None},
        {"nbf": soon},
        {"iss": "http://other"},
        {"iss": None},
        {"aud": None},
    ):
        with pytest.raises(Unauthorized, match="the token is not taken"):
            await shelf.caller_of(f"Bearer {forged(issuer, change, key=own)}")


async def test_an_issuer_that_cannot_be_reached_is_no_reason_to_let_anyone_in(
    issuer: RealIssuer, tmp_path: Path
) -> None:
    shelf = shelf_of(tmp_path, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(IssuerUnavailable):
        await shelf.caller_of(f"Bearer {issuer.token('alice')}")


async def test_the_issuer_is_not_asked_for_every_token(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, issuer.url)
    asked: list[float] = []
    assert shelf.issuer is not None

    class Counting(tokens.Issuer):
        async def _ask(self) -> None:
            asked.append(time.monotonic())
            await super()._ask()

    shelf.issuer = Counting(shelf.issuer.part)
    token = issuer.token("alice")
    await asyncio.gather(*(shelf.caller_of(f"Bearer {token}") for _ in range(20)))
    unknown = jwt.encode({"sub": "x"}, rsa.generate_private_key(65537, 2048), algorithm="RS256", headers={"kid": "x"})
    for _ in range(5):
        with pytest.raises(Unauthorized, match="signed by a key that the issuer does not have"):
            await shelf.caller_of(f"Bearer {unknown}")
    assert len(asked) == 1


def test_a_reload_keeps_the_issuers_keys(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, issuer.url)
    before = shelf.issuer
    shelf.reload()
    assert shelf.issuer is before
    assert Book.of(read_policy(shelf.path)[0], Defaults()).oidc == shelf.book.oidc
