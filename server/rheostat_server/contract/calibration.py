"""What a dial's value means: per mode, a monotone map from the level asked to the control value that reaches it."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials

Level = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class CalibrationPoint(BaseModel):
    """One control value: the mean score measured there, made monotone, and that mean's 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    control: Level
    score: Level
    low: Level
    high: Level


class DialCalibration(BaseModel):
    """A dial's points, ascending in control value and never falling in score. Between two points it is linear.

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

    def score_at(self, control: float) -> float:
        """The mean score expected at a control value."""
        return _interpolated([(point.control, point.score) for point in self.points], control)

    def control_for(self, score: float) -> float:
        """The control value whose expected mean score is `score`.

        At the ends of the attainable range, and outside it, the outermost control value: whoever asks for so much means
        as far as it goes. Where the curve is flat in between, many control values reach the score: the middle of them.
        Between flat and steep the curve is read where it rises, so `score_at` gives the score back.
        """
        first, last = self.points[0], self.points[-1]
        if first.score == last.score:
            return (first.control + last.control) / 2
        if not first.score < score < last.score:
            return (first if score <= first.score else last).control
        reached = [point.control for point in self.points if point.score == score]
        if reached:
            return (reached[0] + reached[-1]) / 2
        return _interpolated([(point.score, point.control) for point in self.points], score)


Calibration = dict[str, dict[DialName, DialCalibration]]
"""By mode, then by dial."""


def calibrated(dials: Dials, curves: Mapping[DialName, DialCalibration]) -> Dials:
    """The control values under which the mean scores are the dials'; a dial without a curve keeps its value."""
    asked = dials.as_dict()
    return dials.replaced({name: curves[name].control_for(asked[name]) for name in DIAL_NAMES if name in curves})


def _interpolated(knots: list[tuple[float, float]], at: float) -> float:
    """Piecewise linear between knots that ascend; outside them the value of the nearest."""
    place = bisect_right(knots, at, key=lambda knot: knot[0])
    if place == 0:
        return knots[0][1]
    if place == len(knots):
        return knots[-1][1]
    (left, low), (right, high) = knots[place - 1], knots[place]
    return low + (high - low) * (at - left) / (right - left)
