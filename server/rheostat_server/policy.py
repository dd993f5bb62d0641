"""From the dials asked for to the dials in force: defaults, presets, and the caller's envelope. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rheostat_server.chat_request import ControlRequest
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials, check_dial
from rheostat_server.errors import NotPermitted, UnknownMode, UnknownPreset
from rheostat_server.modes import KNOWN_MODES


@dataclass(frozen=True, slots=True)
class DialRange:
    """The values of one dial that a caller may have in force, and the one it has when it does not ask."""

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


@dataclass(frozen=True, slots=True)
class Envelope:
    """The limits that the operator sets for a caller; `outside` says what happens to a value beyond them.

    A reranked answer whose safety is judged below `safety_floor` is never returned; `refusal` is, in its place.
    """

    name: str = "default"
    safety: DialRange = field(default_factory=DialRange)
    helpfulness: DialRange = field(default_factory=DialRange)
    modes: tuple[str, ...] = KNOWN_MODES
    default_mode: str = "auto"
    outside: Literal["clamp", "reject"] = "clamp"
    max_candidates: int = 16
    safety_floor: float = 0.0
    refusal: str = "I cannot help with that."

    def __post_init__(self) -> None:
        if self.max_candidates < 1:
            raise ValueError(f"max_candidates is {self.max_candidates}; it must be at least 1")
        check_dial("safety_floor", self.safety_floor)

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


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds for a request: the dials asked for, those in force, the mode, and what was clamped: dials, candidates.

    `limits` are the least and the greatest value that the caller may have in force. `candidates` are those asked for,
    as far as the caller may; `floor` and `refusal` are the envelope's.
    """

    requested: Mapping[DialName, float]
    dials: Dials
    clamped: tuple[str, ...]
    mode: str
    limits: Mapping[DialName, tuple[float, float]] = field(default_factory=dict)
    candidates: int | None = None
    max_candidates: int = 16
    floor: float = 0.0
    refusal: str = ""


def resolve(asked: ControlRequest, policy: Policy) -> InForce:
    """The dials and the mode in force for a request.

    Raises:
        UnknownPreset, UnknownMode: a name that does not exist.
        NotPermitted: a mode, or under `outside: reject` a dial or a number of candidates, that the caller's envelope
            does not hold.
    """
    envelope = policy.envelope
    preset = _preset(asked.preset, policy.presets)
    requested: dict[DialName, float] = {**preset.dials, **asked.dials}
    dials, clamped = _within(requested, envelope)
    mode = preset.mode if asked.mode is None else asked.mode
    candidates = _candidates(asked.candidates, envelope)
    return InForce(
        requested=requested,
        dials=dials,
        clamped=clamped if candidates == asked.candidates else (*clamped, "candidates"),
        mode=_mode(mode, envelope),
        limits={name: allowed.ends for name, allowed in envelope.ranges().items()},
        candidates=candidates,
        max_candidates=envelope.max_candidates,
        floor=envelope.safety_floor,
        refusal=envelope.refusal,
    )


def _preset(name: str | None, presets: Mapping[str, Preset]) -> Preset:
    if name is None:
        return Preset({})
    if name not in presets:
        raise UnknownPreset(name, presets)
    return presets[name]


def _within(requested: Mapping[DialName, float], envelope: Envelope) -> tuple[Dials, tuple[DialName, ...]]:
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


def _candidates(asked: int | None, envelope: Envelope) -> int | None:
    if asked is None or asked <= envelope.max_candidates:
        return asked
    if envelope.outside == "reject":
        raise NotPermitted(
            f"candidates is {asked}; envelope {envelope.name!r} allows at most {envelope.max_candidates}",
            param="control.candidates",
        )
    return envelope.max_candidates


def _mode(asked: str | None, envelope: Envelope) -> str:
    mode = envelope.default_mode if asked is None else asked
    if mode not in KNOWN_MODES:
        raise UnknownMode(mode, KNOWN_MODES)
    if mode not in envelope.modes:
        raise NotPermitted(
            f"mode is {mode!r}; envelope {envelope.name!r} allows {', '.join(envelope.modes)}", param="control.mode"
        )
    return mode
