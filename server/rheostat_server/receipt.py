"""The receipt: what was asked of the dials, what was in force, and what it cost."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials
from rheostat_server.modes.reranking import RerankPlan
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import InForce
from rheostat_server.reranking.facts import Facts


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds since the request came in, by the name of what had then been done."""

    started: float = field(default_factory=perf_counter)
    marks: dict[str, float] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.marks[name] = round((perf_counter() - self.started) * 1000, 3)


def make_receipt(in_force: InForce, plan: ControlPlan, timing: Stopwatch, facts: Facts | None = None) -> dict[str, Any]:
    """The `control` object of a response; parts that do not apply are absent.

    Where no dial is in force (mode `off`), there is no `effective`, and no dial can be `clamped`. `facts` are those of
    a reranked answer.
    """
    parts = {**plan_parts(in_force, plan), "timing_ms": timing.marks}
    if facts is None:
        return parts
    judging = {"scorers": round(facts.seconds_judging * 1000, 3)}
    return {**parts, **facts.parts(), "timing_ms": {**timing.marks, **judging}}


def plan_parts(in_force: InForce, plan: ControlPlan) -> dict[str, Any]:
    """What the receipt and a dry run both tell."""
    parts = {
        "requested": dict(in_force.requested),
        "effective": plan.effective.as_dict() if plan.effective else None,
        "clamped": _clamped(in_force, plan),
        "mode": plan.mode,
        "adapter": plan.adapter,
        "control_text": plan.control_text,
        "prompt_version": plan.prompt_version,
        "neutralised": plan.neutralised or None,
        "control_values": _rounded(plan.control_values) if plan.control_values else None,
        "blend": dict(plan.blend.weights) if plan.blend else None,
        **(_rerank_parts(plan.rerank) if plan.rerank else {}),
    }
    return {name: part for name, part in parts.items() if part is not None}


def _clamped(in_force: InForce, plan: ControlPlan) -> list[str] | None:
    """Numbers are held to the envelope where no dial is in force, too."""
    if plan.effective:
        return list(in_force.clamped)
    return [name for name in in_force.clamped if name not in DIAL_NAMES] or None


def _rerank_parts(plan: RerankPlan) -> dict[str, Any]:
    return {
        "candidates": {"wanted": plan.wanted},
        "early_stop": plan.schedule.as_data(),
        "safety_floor": plan.floor if plan.floor > 0 else None,
        "scorers": list(plan.scorers),
    }


def _rounded(dials: Dials) -> dict[DialName, float]:
    return {name: round(value, 4) for name, value in dials.as_dict().items()}
