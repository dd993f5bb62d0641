"""From the dials asked for to the dials in force: defaults, presets, and the caller's envelope. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials, Limits, check_dial
from rheostat_server.control_request import ControlRequest
from rheostat_server.errors import InvalidField, NotPermitted, UnknownMode, UnknownPreset
from rheostat_server.held import Kind, check_held
from rheostat_server.limits.rates import Rates
from rheostat_server.modes import KNOWN_MODES

BOUNDS: Final = ("max_tokens", "max_completion_tokens")
"""The fields of OpenAI's body that bound an answer's tokens; some servers know the first alone."""
REFUSAL: Final = "I cannot help with that."


@dataclass(frozen=True, slots=True)
class DialRange:
    """The values of one dial that a caller may have in force, and the one it has when it does not ask.

    A dial whose minimum is its maximum is locked.
    """

    minimum: float = 0.0
    maximum: float = 1.0
    default: float = 0.75

    def __post_init__(self) -> None:
        for name, value in (("minimum", self.minimum), ("maximum", self.maximum), ("default", self.default)):
            check_dial(name, value)
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError(f"default is {self.default}; it must lie from {self.minimum} to {self.maximum}")

    def nearest(self, value: float) -> float:
        return min(max(value, self.minimum), self.maximum)

    @property
    def ends(self) -> tuple[float, float]:
        return self.minimum, self.maximum

    @property
    def locked(self) -> bool:
        return self.minimum == self.maximum


Allowed = tuple[str, ...] | None
"""Names that a caller may use; None where it may use any."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The limits that the operator sets for a caller; `outside` says what happens to a value beyond them.

    A reranked answer whose safety is judged below `safety_floor` is never returned; `refusal` is, in its place.
    `max_candidates` bounds the choices of a request too, and `max_tokens` the tokens of an answer.
    """

    name: str = "default"
    safety: DialRange = field(default_factory=DialRange)
    helpfulness: DialRange = field(default_factory=DialRange)
    modes: tuple[str, ...] = KNOWN_MODES
    default_mode: str = "auto"
    adapters: Allowed = None
    presets: Allowed = None
    models: Allowed = None
    outside: Literal["clamp", "reject"] = "clamp"
    max_candidates: int = 16
    max_tokens: int | None = None
    safety_floor: float = 0.0
    refusal: str = REFUSAL
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        for name, value in (("max_candidates", self.max_candidates), ("max_tokens", self.max_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.default_mode not in self.modes:
            raise ValueError(f"default_mode is {self.default_mode!r}; it must be one of {', '.join(self.modes)}")
        check_dial("safety_floor", self.safety_floor)

    def may(self, kind: Literal["adapters", "presets", "models"], name: str) -> bool:
        """Whether a name of that kind may be used."""
        allowed = {"adapters": self.adapters, "presets": self.presets, "models": self.models}[kind]
        return allowed is None or name in allowed

    def ranges(self) -> dict[DialName, DialRange]:
        return {"safety": self.safety, "helpfulness": self.helpfulness}


@dataclass(frozen=True, slots=True)
class Preset:
    """A named setting of the dials; a request's own body and headers go before it."""

    dials: Mapping[DialName, float]
    mode: str | None = None


DEFAULT_PRESETS: Mapping[str, Preset] = {
    "strict": Preset({"safety": 1.0, "helpfulness": 0.5}),
    "balanced": Preset({"safety": 0.75, "helpfulness": 0.75}),
    "open": Preset({"safety": 0.25, "helpfulness": 1.0}),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Presets by name, and the envelope of a caller."""

    envelope: Envelope = field(default_factory=Envelope)
    presets: Mapping[str, Preset] = field(default_factory=lambda: DEFAULT_PRESETS)

    @property
    def permitted_presets(self) -> dict[str, Preset]:
        """Those that the caller may name."""
        return {name: preset for name, preset in self.presets.items() if self.envelope.may("presets", name)}


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds for a request: the dials asked for, those in force, the mode, and the names of all that was clamped.

    `limits` are the least and the greatest value that the caller may have in force. `candidates` are those asked for,
    as far as the caller may. `envelope` is what all of it was held to.
    """

    requested: Mapping[DialName, float]
    dials: Dials
    clamped: tuple[str, ...]
    mode: str
    candidates: int | None = None
    envelope: Envelope = field(default_factory=Envelope)

    @property
    def limits(self) -> Limits:
        return {name: allowed.ends for name, allowed in self.envelope.ranges().items()}


def resolve(asked: ControlRequest, policy: Policy) -> InForce:
    """The dials and the mode in force for a request.

    Raises:
        UnknownPreset, UnknownMode: a name that does not exist.
        NotPermitted: a mode or preset, or under `outside: reject` a dial or a number of candidates, that the caller's
            envelope does not hold.
    """
    envelope = policy.envelope
    preset = _preset(asked.preset, policy)
    requested: dict[DialName, float] = {**preset.dials, **asked.dials}
    dials, clamped = _within(requested, envelope)
    candidates = asked.candidates
    if candidates is not None:
        candidates = _at_most(candidates, envelope.max_candidates, "candidates", envelope, param="control.candidates")
    return InForce(
        requested=requested,
        dials=dials,
        clamped=clamped if candidates == asked.candidates else (*clamped, "candidates"),
        mode=_mode(preset.mode if asked.mode is None else asked.mode, envelope),
        candidates=candidates,
        envelope=envelope,
    )


def resolve_body(body: Mapping[str, Any], in_force: InForce) -> tuple[dict[str, Any], InForce]:
    """A request's body with no more choices and tokens than the caller may have, and what is then in force.

    Where tokens are limited, `max_tokens` is always there, and equals `max_completion_tokens` where that was given: it
    does not matter which of them an engine reads.

    Raises:
        InvalidField: a number of tokens is none, and there is a limit; a field goes around what the request is held to.
        NotPermitted: under `outside: reject`, there are more.
    """
    envelope = in_force.envelope
    limits = {"n": envelope.max_candidates, **dict.fromkeys(BOUNDS, envelope.max_tokens)}
    asked = {name: (_number(name, body[name], least=1), most) for name, most in limits.items()
             if most is not None and body.get(name) is not None}  # fmt: skip
    allowed = {name: _at_most(value, most, name, envelope) for name, (value, most) in asked.items()}
    clamped = tuple(name for name, (value, _) in asked.items() if allowed[name] != value)
    if envelope.max_tokens is not None:
        given = [name for name in BOUNDS if name in allowed]
        bound = min((allowed[name] for name in given), default=envelope.max_tokens)
        _check_least(body, bound)
        allowed |= dict.fromkeys((BOUNDS[0], *given), bound)
    bounded = {**body, **allowed}
    check_held(bounded, _held(in_force))
    return bounded, replace(in_force, clamped=(*in_force.clamped, *clamped))


def _check_least(body: Mapping[str, Any], bound: int) -> None:
    if body.get("min_tokens") is not None and _number("min_tokens", body["min_tokens"], least=0) > bound:
        raise InvalidField(
            f"min_tokens is {body['min_tokens']}, and an answer may have {bound} tokens; ask for fewer",
            param="min_tokens",
        )


def _held(in_force: InForce) -> dict[Kind, str]:
    """What no other field of a body may go around, and why."""
    envelope = in_force.envelope
    held: dict[Kind, str] = {"choices": f"n is all that a caller of envelope {envelope.name!r} may draw"}
    if envelope.max_tokens is not None:
        held["tokens"] = f"envelope {envelope.name!r} allows {envelope.max_tokens} tokens"
    if in_force.mode != "off":
        held["model"] = f"the mode is {in_force.mode!r}, which it could undo"
    elif envelope.models is not None or envelope.adapters is not None:
        held["model"] = f"envelope {envelope.name!r} names what may be used"
    return held


def _number(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidField(f"{name} is {value!r}; it must be a whole number of at least {least}", param=name)
    return value


def _preset(name: str | None, policy: Policy) -> Preset:
    if name is None:
        return Preset({})
    if name not in policy.presets:
        raise UnknownPreset(name, policy.permitted_presets)
    if not policy.envelope.may("presets", name):
        raise not_permitted("preset", name, policy.envelope, policy.envelope.presets, param="control.preset")
    return policy.presets[name]


def _within(requested: Mapping[DialName, float], envelope: Envelope) -> tuple[Dials, tuple[str, ...]]:
    ranges = envelope.ranges()
    wanted: dict[DialName, float] = {name: requested.get(name, ranges[name].default) for name in DIAL_NAMES}
    allowed: dict[DialName, float] = {name: ranges[name].nearest(value) for name, value in wanted.items()}
    clamped: tuple[DialName, ...] = tuple(name for name in DIAL_NAMES if allowed[name] != wanted[name])
    if clamped and envelope.outside == "reject":
        name = clamped[0]
        raise NotPermitted(
            f"{name} is {wanted[name]}; envelope {envelope.name!r} allows {ranges[name].minimum} to "
            f"{ranges[name].maximum}",
            param=f"control.{name}",
        )
    return Dials(safety=allowed["safety"], helpfulness=allowed["helpfulness"]), clamped


def _at_most(asked: int, most: int, name: str, envelope: Envelope, *, param: str | None = None) -> int:
    if asked <= most:
        return asked
    if envelope.outside == "reject":
        raise NotPermitted(f"{name} is {asked}; envelope {envelope.name!r} allows at most {most}", param=param or name)
    return most


def _mode(asked: str | None, envelope: Envelope) -> str:
    """A mode that the envelope holds; `auto` leaves the choice to us, so where it is not held it is the default."""
    mode = envelope.default_mode if asked is None or (asked == "auto" and "auto" not in envelope.modes) else asked
    if mode not in KNOWN_MODES:
        raise UnknownMode(mode, KNOWN_MODES)
    if mode not in envelope.modes:
        raise not_permitted("mode", mode, envelope, envelope.modes, param="control.mode")
    return mode


def not_permitted(what: str, name: str, envelope: Envelope, allowed: Allowed, *, param: str) -> NotPermitted:
    """The error for a name that an envelope does not hold."""
    return NotPermitted(
        f"{what} is {name!r}; envelope {envelope.name!r} allows {', '.join(allowed or ()) or 'none'}", param=param
    )
