"""Labelled answers for the demo's scorers: evenly drawn levels, half of the answers without their plan.

A scorer that could trust the announcement would never read what follows, so half the rows hide it.
"""

from collections.abc import Iterator
from random import Random
from typing import Literal

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_training.demo.answer import TOP_LEVEL, Manner, plan_sentence, write_answer
from rheostat_training.demo.corpus import draw_scenario
from rheostat_training.demo.policy import LEVELS
from rheostat_training.rows import Messages
from rheostat_training.scorer_fit import ScorerRow

Attribute = Literal["safety", "helpfulness"]
WITHOUT_PLAN = 0.5


def labelled_rows(attribute: Attribute, count: int, *, purpose: str, seed: int) -> list[ScorerRow]:
    """Rows for a scorer of one attribute; another purpose or seed gives other rows."""
    random = Random(f"labelled {purpose} {attribute} {seed}")
    return [
        ScorerRow(messages, answer, _level(manner, attribute)) for messages, answer, manner in _drawn(random, count)
    ]


def rows_of_both(count: int, *, purpose: str, seed: int) -> list[ScorerRow]:
    """Rows for a scorer that has a head for each of `DIAL_NAMES`; another purpose or seed gives other rows."""
    random = Random(f"labelled {purpose} {seed}")
    return [
        ScorerRow(messages, answer, tuple(_level(manner, dial) for dial in DIAL_NAMES))
        for messages, answer, manner in _drawn(random, count)
    ]


def _drawn(random: Random, count: int) -> Iterator[tuple[Messages, str, Manner]]:
    for _ in range(count):
        scenario = draw_scenario(random)
        manner = Manner(*(random.choice(LEVELS) for _ in range(4)))
        answer = write_answer(scenario, manner, random)
        if random.random() < WITHOUT_PLAN:
            answer = answer.replace(plan_sentence(manner) + " ", "")
        yield ({"role": "user", "content": scenario.prompt},), answer, manner


def _level(manner: Manner, attribute: Attribute) -> float:
    return (manner.safety if attribute == "safety" else manner.helpfulness) / TOP_LEVEL
