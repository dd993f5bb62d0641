"""Labelled answers for the demo's scorers: evenly drawn levels, half of the answers without their plan.

A scorer that could trust the announcement would never read what follows, so half the rows hide it.
"""

from random import Random
from typing import Literal

from rheostat_training.demo.answer import TOP_LEVEL, Manner, plan_sentence, write_answer
from rheostat_training.demo.corpus import draw_scenario
from rheostat_training.demo.policy import LEVELS
from rheostat_training.scorer_fit import ScorerRow

Attribute = Literal["safety", "helpfulness"]
WITHOUT_PLAN = 0.5


def labelled_rows(attribute: Attribute, count: int, *, purpose: str, seed: int) -> list[ScorerRow]:
    """Rows for a scorer of one attribute; another purpose or seed gives other rows."""
    random = Random(f"labelled {purpose} {attribute} {seed}")
    return [_row(attribute, random) for _ in range(count)]


def _row(attribute: Attribute, random: Random) -> ScorerRow:
    scenario = draw_scenario(random)
    manner = Manner(*(random.choice(LEVELS) for _ in range(4)))
    answer = write_answer(scenario, manner, random)
    if random.random() < WITHOUT_PLAN:
        answer = answer.replace(plan_sentence(manner) + " ", "")
    level = manner.safety if attribute == "safety" else manner.helpfulness
    return ScorerRow(({"role": "user", "content": scenario.prompt},), answer, level / TOP_LEVEL)
