"""What a policy file means: from a request's credentials to a Caller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rheostat_server.callers import Caller
from rheostat_server.callers.keys import Key, digest_of
from rheostat_server.callers.schema import DialPart, EnvelopePart, FloorPart, OidcPart, PolicyPart
from rheostat_server.contract.dials import DialName
from rheostat_server.errors import Unauthorized
from rheostat_server.limits.rates import Rates
from rheostat_server.modes import CONTROLLED
from rheostat_server.policy import DEFAULT_PRESETS, REFUSAL, DialRange, Envelope, Policy, Preset


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an envelope takes of the server's settings where the file says nothing."""

    dials: Mapping[DialName, float] = field(default_factory=lambda: {"safety": 0.75, "helpfulness": 0.75})
    max_candidates: int = 16
    safety_floor: float = 0.0
    refusal: str = REFUSAL


@dataclass(frozen=True, slots=True)
class Book:
    """A policy file as it is in force. `digest` is that of the file."""

    policies: Mapping[str, Policy]
    keys: tuple[Key, ...] = ()
    anonymous: str | None = None
    oidc: OidcPart | None = None
    digest: str = ""

    @classmethod
    def of(cls, part: PolicyPart, defaults: Defaults, *, digest: str = "") -> "Book":
        presets = _presets(part)
        policies = {
            name: Policy(_envelope(name, each, part.floor, defaults), presets) for name, each in part.envelopes.items()
        }
        keys = tuple(Key(key.name, key.sha256, key.envelope, key.owner, key.expires, key.admin) for key in part.keys)
        return cls(policies, keys, part.anonymous, part.oidc, digest)

    def caller_of_key(self, key: str, *, now: datetime | None = None) -> Caller | None:
        """Whose key it is; None for a key of nobody. All keys are compared, whichever it is.

        Raises:
            Unauthorized: it has expired.
        """
        digest = digest_of(key)
        found = [known for known in self.keys if known.is_that_of(digest)]
        if not found:
            return None
        if not found[0].holds_at(now or datetime.now(UTC)):
            raise Unauthorized(f"the key {found[0].name!r} expired on {found[0].expires:%Y-%m-%d %H:%M} UTC")
        return Caller(found[0].caller, self.policies[found[0].envelope], admin=found[0].admin, key=found[0].name)

    def caller_without_key(self) -> Caller:
        """Anonymous, where the operator lets people be.

        Raises:
            Unauthorized: nobody may call without a key.
        """
        if self.anonymous is None:
            raise Unauthorized("no key was sent; send one as Authorization: Bearer KEY")
        return Caller(policy=self.policies[self.anonymous])


def _presets(part: PolicyPart) -> Mapping[str, Preset]:
    if part.presets is None:
        return DEFAULT_PRESETS
    return {name: Preset(preset.dials(), preset.mode) for name, preset in part.presets.items()}


def _envelope(name: str, part: EnvelopePart, floor: FloorPart, defaults: Defaults) -> Envelope:
    modes = tuple(dict.fromkeys(part.modes)) if part.modes else CONTROLLED
    return Envelope(
        name=name,
        safety=_range(part.safety, floor.safety, defaults.dials["safety"]),
        helpfulness=_range(part.helpfulness, floor.helpfulness, defaults.dials["helpfulness"]),
        modes=modes,
        default_mode=part.default_mode or ("auto" if "auto" in modes else modes[0]),
        adapters=_tuple(part.adapters),
        presets=_tuple(part.presets),
        models=_tuple(part.models),
        outside=part.outside,
        max_candidates=part.candidates or defaults.max_candidates,
        max_tokens=part.max_tokens,
        safety_floor=defaults.safety_floor if part.safety_floor is None else part.safety_floor,
        refusal=part.refusal or defaults.refusal,
        rates=Rates(**part.rate.model_dump()),
    )


def _range(part: DialPart, floor: float, default: float) -> DialRange:
    """No lower than the floor; a locked dial has its default alone."""
    lowest = max(part.min, floor)
    chosen = min(max(default if part.default is None else part.default, lowest), part.max)
    return DialRange(chosen, chosen, chosen) if part.locked else DialRange(lowest, part.max, chosen)


def _tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
