"""Tokens of a real issuer, a process: taken where they are its own and for us, refused in every other case."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rheostat_server.callers import tokens
from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.file import read_policy
from rheostat_server.callers.schema import CallerName, ClaimPart, OidcPart
from rheostat_server.callers.shelf import Shelf
from rheostat_server.errors import IssuerUnavailable, Unauthorized
from rheostat_server.policy import Policy
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
    assert (caller.name, caller.key, caller.admin) == ("oidc:alice", None, False)
    assert caller.policy.envelope.name == "children"


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
    assert (await shelf.caller_of(f"Bearer {forged(issuer, {}, key=own)}")).name == "oidc:alice"
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


async def test_keys_that_are_old_are_asked_for_beside_the_request(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, issuer.url)
    token = issuer.token("alice")
    await shelf.caller_of(f"Bearer {token}")
    assert shelf.issuer is not None
    shelf.issuer.got_at = shelf.issuer.asked_at = time.monotonic() - tokens.FRESH_SECONDS - 1
    before, known = shelf.issuer.got_at, shelf.issuer.keys
    await shelf.caller_of(f"Bearer {token}")
    assert shelf.issuer.keys is known
    async with asyncio.timeout(20):
        while shelf.issuer.got_at == before:
            await asyncio.sleep(0.01)
    assert shelf.issuer.keys.keys() == known.keys()


OWN = rsa.generate_private_key(65537, 2048)
POLICIES = {"lab": Policy()}


def signed(issuer: str, *, kid: str = "known", **claims: Any) -> str:
    told = {"iss": issuer, "aud": "rheostat", "sub": "dave", "exp": time.time() + 60, **claims}
    return jwt.encode(told, OWN, algorithm="RS256", headers={"kid": kid})


def issuer_at(url: str, *, name_claim: str = "sub") -> tokens.Issuer:
    """One whose key was had long ago."""
    claim = ClaimPart(claim="aud", value="rheostat", envelope="lab")
    part = OidcPart(issuer=url, audience="rheostat", claims=[claim], name_claim=name_claim)
    key = jwt.PyJWK(json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OWN.public_key())), algorithm="RS256")
    return tokens.Issuer(part, {"known": key}, got_at=time.monotonic() - tokens.FRESH_SECONDS - 1)


Say = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def ill_issuer(say: Say) -> AsyncGenerator[tuple[str, asyncio.Event]]:
    """A server that says to everyone what it likes; its address, and whether it was asked."""
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError), closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await say(writer)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_whose_key_is_known_does_not_wait_for_an_issuer_that_is_silent() -> None:
    never = asyncio.Event()

    async def say_nothing(writer: asyncio.StreamWriter) -> None:
        await never.wait()

    async with ill_issuer(say_nothing) as (url, asked):
        issuer = issuer_at(url)
        unknown = asyncio.ensure_future(issuer.caller_of(signed(url, kid="new"), POLICIES))
        await asked.wait()
        for _ in range(20):
            caller = await issuer.caller_of(signed(url), POLICIES)
            assert caller is not None
            assert not unknown.done()
        never.set()
        with pytest.raises(Unauthorized, match="signed by a key that the issuer does not have"):
            await unknown


async def test_an_issuer_that_drips_holds_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "TIMEOUT_SECONDS", 0.5)

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with ill_issuer(drip) as (url, _), asyncio.timeout(20):
        issuer = issuer_at(url)
        with pytest.raises(Unauthorized, match="signed by a key that the issuer does not have"):
            await issuer.caller_of(signed(url, kid="new"), POLICIES)


async def test_who_asks_first_may_leave_and_the_others_get_the_keys(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf, token = shelf_of(tmp_path, issuer.url), f"Bearer {issuer.token('alice')}"
    first, second = (asyncio.ensure_future(shelf.caller_of(token)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).name == "oidc:alice"


@pytest.mark.parametrize(
    "told",
    ["[]", "{", '{"issuer": 1}', "URL", '{"issuer": "URL", "jwks_uri": "http://[x"}',
     '{"issuer": "URL", "jwks_uri": "URL", "keys": {}}', '{"issuer": "URL", "jwks_uri": "URL", "keys": [1]}',
     '{"issuer": "URL", "jwks_uri": "URL", "keys": [{"kty": "RSA", "n": 1, "e": []}]}'],
)  # fmt: skip
async def test_an_issuer_that_answers_nonsense_cannot_be_had(told: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + told.replace("URL", url).encode())
        await writer.drain()

    async with ill_issuer(answer) as (url, _):
        issuer = issuer_at(url)
        issuer.keys = {}
        with pytest.raises(IssuerUnavailable):
            await issuer.caller_of(signed(url), POLICIES)


@pytest.mark.parametrize(
    "subject", ["kids-app", "anonymous", "oidc:x", "x" * 128, "x" * 129, "x" * 130, "a\nb", "\ud800"]
)
async def test_a_subject_has_a_name_that_nobody_else_has(subject: str) -> None:
    caller = await issuer_at("http://127.0.0.1").caller_of(signed("http://127.0.0.1", sub=subject), POLICIES)
    assert caller is not None
    assert caller.name.startswith("oidc")
    assert caller.name.isprintable()
    assert len(caller.name) <= 140
    with pytest.raises(ValidationError):
        TypeAdapter(CallerName).validate_python(caller.name)


LONG_ONES = st.builds(lambda length, end: "x" * length + end, st.integers(124, 130), st.text("ab", max_size=3))


@given(st.lists(st.text() | LONG_ONES, min_size=2, max_size=8, unique=True))
def test_two_subjects_are_two_callers(subjects: list[str]) -> None:
    assert len({tokens.name_of(subject) for subject in subjects}) == len(subjects)


@pytest.mark.parametrize("name", [5, "", None, ["dave"], {"dave": True}])
async def test_a_token_that_names_nobody_is_refused(name: object) -> None:
    issuer = issuer_at("http://127.0.0.1", name_claim="user")
    with pytest.raises(Unauthorized, match="claim"):
        await issuer.caller_of(signed("http://127.0.0.1", user=name), POLICIES)


async def test_a_reload_keeps_the_issuers_keys(issuer: RealIssuer, tmp_path: Path) -> None:
    shelf = shelf_of(tmp_path, issuer.url)
    before = shelf.issuer
    await shelf.reload()
    assert shelf.issuer is before
    assert Book.of(read_policy(shelf.path)[0], Defaults()).oidc == shelf.book.oidc
