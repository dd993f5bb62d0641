"""Blends two prompts of the demo world by its own sentences: the substance of one, the person of the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import scenario_of, training_scenarios
from rheostat_training.equilibrate.fdc.blend_prompts import Parents
from rheostat_training.equilibrate.fdc.checked_answers import Answered
from rheostat_training.progress import Progress


@dataclass(frozen=True, slots=True)
class DemoBlender:
    """Makes a mixed prompt that training may use, on the topic of the explicit one; see `blend_prompts.Blender`."""

    def identity(self) -> str:
        return "the demo world's blender"

    def blend(self, pairs: Sequence[Parents], folder: Path, *, progress: Progress) -> Answered[str]:
        found = {pair.id: blended(pair.explicit.text, pair.implicit.text) for pair in pairs}
        failed = {id: "not two prompts of the demo world that go together" for id, text in found.items() if not text}
        return Answered({id: text for id, text in found.items() if text}, failed)


def blended(explicit: str, implicit: str) -> str | None:
    """A mixed prompt of the world with the one's topic and substance and the other's person; None where it has none."""
    first, second = scenario_of(explicit), scenario_of(implicit)
    if first is None or second is None:
        return None
    return _mixed().get((first.topic.task, first.substance, second.person))


@cache
def _mixed() -> dict[tuple[str, str, str], str]:
    """The mixed prompts that training may use; of several with one topic, substance and person the first."""
    found: dict[tuple[str, str, str], str] = {}
    for scenario in training_scenarios(RiskGroup.MHD):
        found.setdefault((scenario.topic.task, scenario.substance, scenario.person), scenario.prompt)
    return found
