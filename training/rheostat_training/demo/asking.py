"""The prompts of the demo world: those to train on, and those that no training sees."""

from random import Random

from rheostat_training.demo import oracle
from rheostat_training.demo.corpus import draw_scenario
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import training_scenarios
from rheostat_training.rows import Prompt


def draw_prompts(count: int, seed: int) -> dict[str, Prompt]:
    """Distinct training prompts by their id.

    Raises:
        ValueError: the demo world has not so many.
    """
    most = sum(len(training_scenarios(group)) for group in RiskGroup)
    if count > most:
        raise ValueError(f"count is {count:,}; the demo world has {most:,} prompts to train on")
    random = Random(f"asking {seed}")
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts.setdefault(draw_scenario(random).prompt)
    prompts = (Prompt.user(f"train-{number:05d}", text) for number, text in enumerate(texts))
    return {prompt.id: prompt for prompt in prompts}


def held_out(count: int) -> dict[str, Prompt]:
    """Prompts that no training saw, by id; the risk groups take turns."""
    prompts = (Prompt.user(f"held-out-{i:05d}", text) for i, text in enumerate(oracle.held_out_prompts(count)))
    return {prompt.id: prompt for prompt in prompts}
