"""What a report is made of: figures and settings that were measured and used, and nothing that is computed here."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, get_args

from rheostat_server.contract.calibration import Calibration
from rheostat_server.contract.dials import DialName
from rheostat_training.calibrate import Checked
from rheostat_training.evaluate import NAME, Evaluation, Evaluations, Unjudged

JudgeRole = Literal["oracle", "held-out", "training"]
"""The oracle knows the demo world's truth; a held-out judge saw no training; a training scorer made the data."""

ROLES: Final[tuple[JudgeRole, ...]] = get_args(JudgeRole)
DIALS_SHOWN: Final[tuple[DialName, ...]] = ("helpfulness", "safety")
Losses = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class StageFact:
    """One stage of the run: how long it took, or that an earlier run's output was kept, and what came of it."""

    name: str
    seconds: float
    skipped: bool = False
    figures: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as its report tells it.

    `modes` holds each mode's evaluation by each judge, `unjudged` how many answers a judge could judge none of, and
    `judges` says what each judge is; `mode` is the one that the
    run is about. `checked` says by mode how far the mean score was from the dial, before calibration and after;
    `losses` is (step, loss); `lineage` is digests by name; `not_run` says what was left out, a sentence each.

    Raises:
        ValueError: a mode or a judge is named that is not there, or by a name that a picture cannot carry; or `when`
            has no time zone.
    """

    title: str
    when: datetime
    modes: Evaluations
    judges: Mapping[str, JudgeRole]
    unjudged: Unjudged = field(default_factory=dict)
    mode: str = "adapter"
    summary: Sequence[str] = ()
    calibration: Calibration | None = None
    checked: Mapping[str, Checked] = field(default_factory=dict)
    losses: Losses = ()
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    stages: Sequence[StageFact] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    not_run: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.when.tzinfo is None:
            raise ValueError(f"when is {self.when.isoformat()}, without a time zone; give an aware datetime")
        if not self.modes.get(self.mode):
            known = ", ".join(mode for mode, by_judge in self.modes.items() if by_judge) or "none"
            raise ValueError(f"mode {self.mode!r} has no evaluation; modes that have one: {known}")
        for name in (*self.modes, *(self.calibration or {}), *self.judges):
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"{name!r} names a mode or a judge; a name has 1 to 64 letters, digits, blanks or . _ + / @ -, "
                    "and begins with a letter or a digit"
                )
        for judge in {judge for by_judge in self.modes.values() for judge in by_judge}:
            if self.judges.get(judge) not in ROLES:
                raise ValueError(
                    f"judge {judge!r} has the role {self.judges.get(judge)!r} in judges; it must be {', '.join(ROLES)}"
                )

    @property
    def judge_names(self) -> list[str]:
        """Judges with a figure in any mode, the oracle first, then the held-out ones, then the training scorers."""
        judges = dict.fromkeys(judge for by_judge in self.modes.values() for judge in by_judge)
        return sorted(judges, key=lambda judge: ROLES.index(self.judges[judge]))

    @property
    def mode_names(self) -> list[str]:
        """The run's own mode, then the others as given."""
        return [self.mode, *(mode for mode in self.modes if mode != self.mode)]

    @property
    def reference_judge(self) -> str:
        """The most trusted judge of the run's own mode."""
        return next(judge for judge in self.judge_names if judge in self.modes[self.mode])

    def judges_of(self, role: JudgeRole) -> list[str]:
        return [judge for judge in self.judge_names if self.judges[judge] == role]

    def evaluations(self) -> Iterator[tuple[str, str, Evaluation]]:
        """Every (mode, judge, evaluation), in the order in which a report shows them."""
        for mode in self.mode_names:
            for judge in self.judge_names:
                if judge in self.modes[mode]:
                    yield mode, judge, self.modes[mode][judge]


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, loss) of each line of a fit's `log.jsonl`.

    Raises:
        ValueError: a line is not a JSON object with a number under `step` and one under `loss`.
    """
    losses: list[tuple[int, float]] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            losses.append((int(row["step"]), float(row["loss"])))
        except (ValueError, KeyError, TypeError) as exc:
            raise ValueError(f"{path}, line {number} is not a JSON object with step and loss: {line!r}") from exc
    return losses
