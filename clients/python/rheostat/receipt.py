"""The receipt of an answer: what was asked of the dials, what was in force, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rheostat.dials import Dials
from rheostat.reply import Scores


@dataclass(frozen=True, slots=True)
class Candidates:
    """How many answers a reranked one was chosen from; a plan tells `wanted` alone. `tokens` are those of all."""

    wanted: int
    generated: int | None = None
    finished: int | None = None
    failed: int = 0
    tokens: int | None = None
    why: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Candidates":
        known = {name: data.get(name) for name in ("generated", "finished", "tokens", "why")}
        return cls(wanted=data["wanted"], failed=data.get("failed", 0), **known)


@dataclass(frozen=True, slots=True)
class Choice:
    """How the candidate was chosen; `left` is how far it is from each dial. docs/reranking.md tells the parts."""

    distance: str
    left: Mapping[str, float]
    ties: int
    unreachable: Sequence[str]
    unjudged: int
    below_floor: int
    after_tokens: int | None = None
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Choice":
        return cls(
            distance=data["distance"],
            left=data.get("left", {}),
            ties=data["ties"],
            unreachable=tuple(data["unreachable"]),
            unjudged=data["unjudged"],
            below_floor=data["below_floor"],
            after_tokens=data.get("after_tokens"),
            left_out=tuple(data.get("left_out", ())),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """A part that does not apply is None or empty; `raw` is the receipt as it came. docs/api.md tells every part."""

    mode: str
    requested: Dials
    effective: Dials | None
    clamped: Sequence[str]
    adapter: str | None
    control_text: str | None
    neutralised: int
    prompt_version: str | None
    control_values: Dials | None
    candidates: Candidates | None
    early_stop: Sequence[Mapping[str, float]]
    safety_floor: float | None
    scorers: Sequence[str]
    scores: Scores | None
    choice: Choice | None
    timing_ms: Mapping[str, float]
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Receipt":
        """From the `control` of an answer, whichever client asked for it."""
        return cls(
            mode=data["mode"],
            requested=Dials.of(data["requested"]),
            effective=_dials(data.get("effective")),
            clamped=tuple(data.get("clamped", ())),
            adapter=data.get("adapter"),
            control_text=data.get("control_text"),
            neutralised=data.get("neutralised", 0),
            prompt_version=data.get("prompt_version"),
            control_values=_dials(data.get("control_values")),
            candidates=Candidates.of(data["candidates"]) if "candidates" in data else None,
            early_stop=tuple(data.get("early_stop", ())),
            safety_floor=data.get("safety_floor"),
            scorers=tuple(data.get("scorers", ())),
            scores=Scores.of(data.get("scores")),
            choice=Choice.of(data["choice"]) if "choice" in data else None,
            timing_ms=data.get("timing_ms", {}),
            raw=data,
        )


def _dials(data: Mapping[str, float] | None) -> Dials | None:
    return None if data is None else Dials.of(data)
