"""A run whose figures are made by drawing, so that every test knows what they are."""

import random
from datetime import UTC, datetime
from itertools import product

import pytest

from rheostat_server.contract.calibration import CalibrationPoint, DialCalibration
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_training.calibrate import Check, Checked
from rheostat_training.evaluate import Evaluation, Trial, evaluate, grid
from rheostat_training.report import RunFacts, StageFact

HOSTILE = "<script>alert('x')</script>\" & | ``` [x](javascript:alert(1))"


def drawn(gain: float, noise: float, *, seed: int, prompts: int = 10, unjudged: int = 0) -> Evaluation:
    """An evaluation of answers that follow the dials by `gain`; the first `unjudged` could not be judged."""
    chance = random.Random(seed)

    def level(asked: float) -> float:
        return min(1.0, max(0.0, 0.5 + gain * (asked - 0.5) + chance.gauss(0, noise)))

    rows = [
        Trial(f"p{prompt}", dials, level(dials.safety), level(dials.helpfulness))
        for prompt, dials in product(range(prompts), grid())
    ]
    blind = [Trial(row.prompt_id, row.requested, None, None) for row in rows[:unjudged]]
    return evaluate(blind + rows[unjudged:], resamples=40)


def curve(*scores: float) -> DialCalibration:
    points = [
        CalibrationPoint(
            control=place / (len(scores) - 1), score=score, low=max(0, score - 0.05), high=min(1, score + 0.05)
        )
        for place, score in enumerate(scores)
    ]
    return DialCalibration(points=points, judge="scorers", prompts=50)


def checked(*reached: tuple[float, float]) -> Checked:
    """Dials asked and mean scores reached before calibration; after it, a hundredth off."""
    before = tuple(Check(asked, found) for asked, found in reached)
    after = tuple(Check(asked, asked + 0.01) for asked, _ in reached)
    return Checked(dict.fromkeys(DIAL_NAMES, before), dict.fromkeys(DIAL_NAMES, after), answers=400, unjudged=3)


@pytest.fixture(scope="session")
def facts() -> RunFacts:
    """Two modes by three judges, of which one could not judge the second mode, with everything a report can show."""
    return RunFacts(
        title="Quick run",
        when=datetime(2026, 11, 21, 10, 52, tzinfo=UTC),
        modes={
            "adapter": {
                "scorers": drawn(0.95, 0.05, seed=1),
                "judges": drawn(0.9, 0.1, seed=2),
                "oracle": drawn(0.9, 0.08, seed=3, unjudged=7),
            },
            "rerank-16": {"scorers": drawn(0.8, 0.1, seed=4), "oracle": drawn(0.5, 0.3, seed=5)},
        },
        unjudged={"rerank-16": {"judges": 90}},
        judges={"scorers": "training", "judges": "held-out", "oracle": "oracle"},
        summary=["The demo base, ExMATE on MOEC."],
        calibration={"adapter": {"safety": curve(0.1, 0.3, 0.9), "helpfulness": curve(0.0, 0.5, 1.0)}},
        checked={"adapter": checked((0.1, 0.25), (0.9, 0.8))},
        losses=[(step, 2.0 / step) for step in range(1, 60)],
        settings={"fit": {"loss": "exmate", "steps": 750, "learning_rate": 0.003, "levels": [0.0, 1.0]}},
        stages=[StageFact("generate", 75.4, figures={"samples": 4800}), StageFact("score", 3.0, skipped=True)],
        lineage={"examples": "sha256:" + "ab" * 32},
        not_run=["Reranking with 32 candidates was not run."],
    )
