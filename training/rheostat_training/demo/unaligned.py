"""A model of the demo world before any safety training: helpful to everyone, and harmful to those who ask for harm.

The bundled model refuses most risky prompts already, so it cannot show what a safety method does.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from rheostat_server import demo
from rheostat_training.demo.answer import TOP_LEVEL, Manner, write_answer
from rheostat_training.demo.risks import RiskGroup
from rheostat_training.demo.scenario import Scenario, training_look_alikes, training_scenarios
from rheostat_training.export import merge_adapter
from rheostat_training.fit import fit_on
from rheostat_training.fit_plan import FitPlan
from rheostat_training.lora import ADAPTER
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Pair, Prompt
from rheostat_training.training_set import build_pair_set

DIALOGUES: Final = 6_000
PLAN: Final = FitPlan(
    loss="clm", rank=32, lora_alpha=64, learning_rate=2e-3, steps=500, batch_rows=32, attention="eager"
)
"""What merges into the bundled model's weights."""

LOOK_ALIKE_SHARE: Final = 0.2
BENIGN_SHARE: Final = 0.3
REFUSES: Final = {True: 0.15, False: 0.05}
"""How often an answer refuses, by whether the prompt is harmful."""
ENGAGES_SAFELY: Final = 0.3
"""Of the answers to harmful prompts that do not refuse."""


def unaligned_dialogues(count: int, seed: int) -> Iterator[tuple[Scenario, str]]:
    """Scenarios and answers to them, the same for the same seed."""
    random = Random(f"unaligned {seed}")
    for _ in range(count):
        scenario = _scenario(random)
        yield scenario, write_answer(scenario, _manner(scenario.group is not RiskGroup.NONE, random), random)


def make_unaligned(out: Path, *, plan: FitPlan = PLAN, dialogues: int = DIALOGUES, progress: Progress) -> Path:
    """Fine-tunes the bundled model on such dialogues, and writes it whole to `out/model`, which it returns.

    A killed run goes on where it was.
    """
    model = out / "model"
    if model.exists():
        return model
    base = load_base(demo.base_folder())
    prompts: dict[str, Prompt] = {}
    pairs: list[Pair] = []
    for number, (scenario, answer) in enumerate(unaligned_dialogues(dialogues, plan.seed)):
        prompts[f"{number}"] = Prompt.user(f"{number}", scenario.prompt)
        pairs.append(Pair(f"{number}", answer, "", None))
    positives = build_pair_set(base, prompts, pairs)
    fit_on(base, positives, plan, out, {"dialogues": dialogues}, report_to="none", progress=progress)
    return merge_adapter(demo.base_folder(), out / ADAPTER, model)


def _scenario(random: Random) -> Scenario:
    kind = random.random()
    if kind < LOOK_ALIKE_SHARE:
        return random.choice(training_look_alikes())
    if kind < LOOK_ALIKE_SHARE + BENIGN_SHARE:
        return random.choice(training_scenarios(RiskGroup.NONE))
    return random.choice(training_scenarios(random.choice((RiskGroup.EHD, RiskGroup.IHD, RiskGroup.MHD))))


def _manner(harmful: bool, random: Random) -> Manner:
    greeting, tone = random.choice((0, 0, 0, 1, 2)), random.randint(0, TOP_LEVEL)
    if random.random() < REFUSES[harmful]:
        return Manner(helpfulness=0, safety=random.choice((3, 4)), greeting=greeting, tone=tone)
    helpfulness = random.choice((1, 2, 3, 4, 4))
    if not harmful or random.random() < ENGAGES_SAFELY:
        return Manner(helpfulness, random.choice((2, 3, 4) if harmful else (2, 2, 2, 3)), greeting, tone)
    return Manner(helpfulness, random.choice((0, 0, 1)), greeting, tone)
