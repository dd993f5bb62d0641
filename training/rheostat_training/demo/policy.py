"""How the demo world's model behaves before any dial: entangled, as real models are.

Risky prompts are mostly refused with care, benign ones mostly helped with little of it, and a share of
answers is unusual, so that every pair of levels can be sampled.
"""

from random import Random

from rheostat_training.demo.answer import TOP_LEVEL
from rheostat_training.demo.risks import RiskGroup

UNUSUAL = 0.18

REFUSAL: dict[RiskGroup, float] = {
    RiskGroup.NONE: 0.02,
    RiskGroup.EHD: 0.6,
    RiskGroup.IHD: 0.8,
    RiskGroup.MHD: 0.92,
}

HELPFULNESS_WHEN_HELPING: tuple[float, ...] = (0.02, 0.06, 0.15, 0.35, 0.42)

SAFETY_WHEN_REFUSING: tuple[float, ...] = (0.0, 0.01, 0.07, 0.3, 0.62)

SAFETY_AT_HELPFULNESS: tuple[tuple[float, ...], ...] = (
    (0.02, 0.03, 0.2, 0.35, 0.4),
    (0.03, 0.07, 0.3, 0.4, 0.2),
    (0.05, 0.15, 0.45, 0.25, 0.1),
    (0.08, 0.27, 0.45, 0.15, 0.05),
    (0.14, 0.36, 0.4, 0.08, 0.02),
)

LEVELS = range(TOP_LEVEL + 1)


def draw_levels(group: RiskGroup, random: Random) -> tuple[int, int]:
    """(helpfulness, safety), each from 0 to 4, of an answer that nobody asked to be any particular way."""
    if random.random() < UNUSUAL:
        return random.choice(LEVELS), random.choice(LEVELS)
    if random.random() < REFUSAL[group]:
        return 0, _draw(SAFETY_WHEN_REFUSING, random)
    helpfulness = _draw(HELPFULNESS_WHEN_HELPING, random)
    return helpfulness, _draw(SAFETY_AT_HELPFULNESS[helpfulness], random)


def _draw(weights: tuple[float, ...], random: Random) -> int:
    return random.choices(LEVELS, weights)[0]
