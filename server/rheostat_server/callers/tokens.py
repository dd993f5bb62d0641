"""Signed tokens of an OpenID Connect issuer, in the place of keys: a claim names the envelope."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import httpx
import jwt
import structlog
from pydantic import BaseModel, ValidationError

from rheostat_server.callers import Caller
from rheostat_server.callers.schema import OidcPart
from rheostat_server.errors import IssuerUnavailable, Unauthorized
from rheostat_server.policy import Policy

log = structlog.get_logger(__name__)

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key that the issuer alone has; one by a shared secret, or none, is never taken."""
DISCOVERY: Final = "/.well-known/openid-configuration"
FRESH_SECONDS: Final = 300.0
"""How long the issuer's keys are taken to be its keys."""
AGAIN_SECONDS: Final = 10.0
"""The pause between two askings for keys, however many tokens name one that is not known."""
TIMEOUT_SECONDS: Final = 5.0
LEEWAY_SECONDS: Final = 30
LONGEST_NAME: Final = 128


class _Discovery(BaseModel):
    issuer: str
    jwks_uri: str


@dataclass(slots=True)
class Issuer:
    """One issuer and its public keys, which are asked for when the first token comes and again when they are old."""

    part: OidcPart
    keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    asked_at: float | None = None
    got_at: float | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def caller_of(self, token: str, policies: Mapping[str, Policy]) -> Caller | None:
        """Whose token it is; None for what is no token at all.

        Raises:
            Unauthorized: it is not the issuer's, not for us, has expired, or no claim gives an envelope.
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
        return str(claims[self.part.name_claim])[:LONGEST_NAME]

    def _envelope(self, claims: Mapping[str, Any]) -> str:
        for each in self.part.claims:
            told = claims.get(each.claim)
            if told == each.value or (isinstance(told, list) and each.value in told):
                return each.envelope
        wanted = ", ".join(f"{each.claim}={each.value}" for each in self.part.claims)
        raise Unauthorized(f"the token has none of the claims that give an envelope: {wanted}")

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._asking:
            if self._is_stale(kid):
                await self._ask()
        if (key := self._known(kid)) is not None:
            return key
        if not self.keys:
            raise IssuerUnavailable(f"the keys of the issuer {self.part.issuer} cannot be had")
        raise Unauthorized("the token is signed by a key that the issuer does not have")

    def _is_stale(self, kid: str) -> bool:
        now = monotonic()
        if self.asked_at is not None and now - self.asked_at < AGAIN_SECONDS:
            return False
        return self._known(kid) is None or self.got_at is None or now - self.got_at > FRESH_SECONDS

    def _known(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id; the only one for a token that names none."""
        return next(iter(self.keys.values())) if not kid and len(self.keys) == 1 else self.keys.get(kid)

    async def _ask(self) -> None:
        """Takes the issuer's keys; where they cannot be had, those that are known stay."""
        self.asked_at = monotonic()
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS) as http:
                told = await _json(http, self.part.issuer.rstrip("/") + DISCOVERY)
                found = _Discovery.model_validate(told)
                if found.issuer != self.part.issuer:
                    raise ValueError(f"it calls itself {found.issuer}")
                keys = jwt.PyJWKSet.from_dict(await _json(http, found.jwks_uri)).keys
        except (httpx.HTTPError, ValueError, ValidationError, jwt.PyJWTError) as exc:
            log.warning("the issuer's keys cannot be had", issuer=self.part.issuer, cause=type(exc).__name__)
            return
        self.keys = {str(key.key_id or ""): key for key in keys}
        self.got_at = monotonic()


async def _json(http: httpx.AsyncClient, url: str) -> Any:
    response = await http.get(url)
    response.raise_for_status()
    return response.json()
