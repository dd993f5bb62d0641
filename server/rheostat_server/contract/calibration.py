"""What a dial's value means: per mode, a monotone map from the level asked to the control value that reaches it."""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rheostat_server.contract.dials import DialName, Dials, Level, Limits


class CalibrationPoint(BaseModel):
    """One control value: the mean score measured there, made monotone, and that mean's 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    control: Level
    score: Level
    low: Level
    high: Level


class DialCalibration(BaseModel):
    """A dial's points, ascending in control value and never falling in score.

    Safety 0.7 is the setting whose measured mean score is 0.7: `control_for` reads the curve from score to control.
    `prompt_version` names the wordings that were measured, where the mode is that of worded prompts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: list[CalibrationPoint] = Field(min_length=2)
    judge: str
    prompts: int = Field(ge=1)
    prompt_version: str | None = None

    @model_validator(mode="after")
    def _monotone(self) -> "DialCalibration":
        for left, right in pairwise(self.points):
            if left.control >= right.control:
                raise ValueError(f"control values {left.control} and {right.control} must ascend")
            if left.score > right.score:
                raise ValueError(f"score falls from {left.score} at {left.control} to {right.score} at {right.control}")
        return self

    @property
    def attainable(self) -> tuple[float, float]:
        """The lowest and the highest mean score that any control value reaches."""
        return self.points[0].score, self.points[-1].score

    def control_for(self, score: float, draw: float, within: tuple[float, float] = (0.0, 1.0)) -> float:
        """A control value for the mean score `score`: over draws uniform in [0, 1) the mean is that score.

        A model learns its control values one by one, and one that was not measured may do anything. So between two
        points either is taken, the nearer one more often (dithering); of points that share a score, any. For one draw
        the control value never falls as the score rises. Outside the attainable range it is that of its nearer end:
        whoever asks for so much means as far as it goes.

        `within` are an operator's limits, in which `score` lies. Of two points, one beyond them is never taken, so no
        draw goes where the operator lets nobody go; the mean then lies inside of the score. Where both are beyond
        them, it is the upper one.
        """
        low, high = self.attainable
        if not low < score < high:
            return self._one_at(low if score <= low else high, draw)
        under = max(point.score for point in self.points if point.score <= score)
        over = min(point.score for point in self.points if point.score >= score)
        if under < within[0]:
            return self._one_at(over, draw)
        if over > within[1]:
            return self._one_at(under, draw)
        share_under = 1 - ((score - under) / (over - under) if over > under else 0.0)
        if draw < share_under:
            return self._one_at(under, draw / share_under)
        return self._one_at(over, (draw - share_under) / (1 - share_under))

    def _one_at(self, score: float, draw: float) -> float:
        same = [point.control for point in self.points if point.score == score]
        return same[min(int(draw * len(same)), len(same) - 1)]


Calibration = dict[str, dict[DialName, DialCalibration]]
"""By mode, then by dial."""


_DRAW_BYTES: Final = 6


def calibrated(
    dials: Dials,
    curves: Mapping[DialName, DialCalibration],
    messages: Sequence[Mapping[str, Any]],
    seed: Any = None,
    *,
    within: Limits | None = None,
) -> Dials:
    """Control values whose mean scores are the dials'; a dial without a curve keeps its value.

    The draws are made from the messages and the request's seed: equal requests get equal control values. `within` are
    an operator's limits by dial, which no draw goes beyond.
    """
    asked, limits = dials.as_dict(), within or {}
    said = json.dumps([messages, seed], sort_keys=True, default=str).encode()
    return dials.replaced(
        {
            name: curve.control_for(asked[name], _draw(said, name), limits.get(name, (0.0, 1.0)))
            for name, curve in curves.items()
        }
    )


def _draw(said: bytes, name: DialName) -> float:
    """Uniform in [0, 1), another for each dial."""
    drawn = blake2b(said, digest_size=_DRAW_BYTES, person=name.encode()).digest()
    return int.from_bytes(drawn) / 256**_DRAW_BYTES
