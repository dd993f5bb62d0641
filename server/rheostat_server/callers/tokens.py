"""Signed tokens of an OpenID Connect issuer, in the place of keys: a claim names the envelope."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import httpx
import jwt
import structlog
from pydantic import BaseModel

from rheostat_server.callers import Caller
from rheostat_server.callers.schema import OidcPart
from rheostat_server.errors import IssuerUnavailable, Unauthorized
from rheostat_server.policy import Policy

log = structlog.get_logger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key that the issuer alone has; one by a shared secret, or none, is never taken."""
DISCOVERY: Final = "/.well-known/openid-configuration"
FRESH_SECONDS: Final = 300.0
"""How long the issuer's keys are taken to be its keys without asking again."""
AGAIN_SECONDS: Final = 10.0
"""The pause between two askings for keys, however many tokens name one that is not known."""
TIMEOUT_SECONDS: Final = 5.0
"""The most that one asking may take, all of it."""
LEEWAY_SECONDS: Final = 30
LONGEST_NAME: Final = 128
FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError, KeyError, jwt.PyJWTError, TimeoutError)
"""Of an asking: it cannot be reached, or what it answers is no key."""


class _Discovery(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


@dataclass(slots=True)
class Issuer:
    """One issuer and its public keys, which are asked for when the first token comes and again when they are old.

    Nobody waits for the issuer whose key is known; those whose key is not wait for the same asking.
    """

    part: OidcPart
    keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    asked_at: float | None = None
    got_at: float | None = None
    _asking: "asyncio.Task[None] | None" = None

    async def caller_of(self, token: str, policies: Mapping[str, Policy]) -> Caller | None:
        """Whose token it is; None for what is no token at all.

        Raises:
            Unauthorized: it is not the issuer's, not for us, has expired, names nobody, or no claim gives an envelope.
            IssuerUnavailable: the issuer's keys cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            return None
        key = await self._key(str(header.get("kid", "")))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self.part.audience,
                issuer=self.part.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", self.part.name_claim]},
            )
        except jwt.InvalidTokenError as exc:
            raise Unauthorized(f"the token is not taken: {exc}") from exc
        return Caller(self._name(claims), policies[self._envelope(claims)])

    def _name(self, claims: Mapping[str, Any]) -> str:
        subject = claims[self.part.name_claim]
        if not isinstance(subject, str) or not subject:
            raise Unauthorized(f"the token's claim {self.part.name_claim} must be a text that names its caller")
        return name_of(subject)

    def _envelope(self, claims: Mapping[str, Any]) -> str:
        for each in self.part.claims:
            told = claims.get(each.claim)
            if told == each.value or (isinstance(told, list) and each.value in told):
                return each.envelope
        wanted = ", ".join(f"{each.claim}={each.value}" for each in self.part.claims)
        raise Unauthorized(f"the token has none of the claims that give an envelope: {wanted}")

    async def _key(self, kid: str) -> jwt.PyJWK:
        if (key := self._known(kid)) is not None:
            if self._is_old():
                self._ask_once()
            return key
        if (asking := self._ask_once()) is not None:
            await asyncio.shield(asking)
        if (key := self._known(kid)) is not None:
            return key
        if not self.keys:
            raise IssuerUnavailable(f"the keys of the issuer {self.part.issuer} cannot be had")
        raise Unauthorized("the token is signed by a key that the issuer does not have")

    def _is_old(self) -> bool:
        return self.got_at is None or monotonic() - self.got_at > FRESH_SECONDS

    def _known(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id; the only one for a token that names none."""
        return next(iter(self.keys.values())) if not kid and len(self.keys) == 1 else self.keys.get(kid)

    def _ask_once(self) -> "asyncio.Task[None] | None":
        """The asking under way, or a new one; None soon after the last."""
        if self._asking is not None and not self._asking.done():
            return self._asking
        now = monotonic()
        if self.asked_at is not None and now - self.asked_at < AGAIN_SECONDS:
            return None
        self.asked_at = now
        self._asking = asyncio.ensure_future(self._ask())
        return self._asking

    async def _ask(self) -> None:
        """Takes the issuer's keys; where they cannot be had, those that are known stay."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS), httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
                told = await _json(http, self.part.issuer.rstrip("/") + DISCOVERY)
                found = _Discovery.model_validate(told)
                if found.issuer != self.part.issuer:
                    raise ValueError(f"it calls itself {found.issuer}")
                keys = jwt.PyJWKSet(_KeySet.model_validate(await _json(http, found.jwks_uri)).keys).keys
        except FAILURES as exc:
            log.warning("the issuer's keys cannot be had", issuer=self.part.issuer, cause=type(exc).__name__)
            return
        self.keys = {str(key.key_id or ""): key for key in keys}
        self.got_at = monotonic()


def name_of(subject: str) -> str:
    """The caller's name: no key of the policy file has it, and no other subject.

    A long subject, or one with signs that do not print, goes by its hash.
    """
    if len(subject) <= LONGEST_NAME and subject.isprintable():
        return f"oidc:{subject}"
    return f"oidc-sha256:{hashlib.sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"


async def _json(http: httpx.AsyncClient, url: str) -> Any:
    response = await http.get(url)
    response.raise_for_status()
    return response.json()
