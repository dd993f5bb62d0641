"""What `rheostat train equilibrate` is to do: data, judges, method, and their settings, in one checked value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, TypeAdapter

from rheostat_server.contract.manifest import AdapterName
from rheostat_training.config import (
    DEMO,
    BadConfig,
    BaseModel,
    Generate,
    JudgeSource,
    over,
    override,
    parse,
    read_sections,
    seeded,
)
from rheostat_training.equilibrate.ama.cost_head import CostPlan
from rheostat_training.equilibrate.config_checks import said_of_data, said_of_method, said_of_sections
from rheostat_training.equilibrate.data import KINDS
from rheostat_training.equilibrate.methods.midpo import EXPERT, PASSES, RouterPlan
from rheostat_training.equilibrate.methods.safe_patching import SafePatchPlan
from rheostat_training.equilibrate.pairs import PairPlan
from rheostat_training.fit_plan import FitPlan
from rheostat_training.generate import SamplingPlan
from rheostat_training.limits import SEEDS, STRICT, above_zero, at_least, one_of, refuse, where
from rheostat_training.reinforce import ReinforcePlan

Method = Literal["dpo", "adpo", "appo", "arj", "bfpo", "midpo", "safe-patching"]
RewardSource = Literal["implicit", "cost-head"]


@dataclass(frozen=True, slots=True)
class Data:
    """Grouped prompts: those to train on and those that measure, in files of `rheostat train groups` or `mix`, or demo.

    `mix` is how many of each group are drawn, all of a file where it is empty; a smaller draw is part of a larger one.
    `held_out_each` is how many of each group are measured by.
    """

    __pydantic_config__ = STRICT

    source: str = DEMO
    held_out: str = DEMO
    mix: Mapping[str, Annotated[int, Field(ge=0)]] = field(default_factory=dict)
    held_out_each: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 1, "held_out_each"),
            where(
                self.source == DEMO and not any(self.mix.values()),
                "mix is empty and source is demo; say how many prompts of each group, such as {EHD: 200, IHD: 60}",
            ),
            (
                f"mix has the group {kind!r}; it must be one of {', '.join(KINDS)}"
                for kind in self.mix
                if kind not in KINDS
            ),
        )


@dataclass(frozen=True, slots=True)
class Judging:
    """What judges answers: the scorers of both dials, and what tells refusals.

    `refusals` is "demo-oracle", "phrases", or the folder of a refusal scorer.
    """

    __pydantic_config__ = STRICT

    scorers: JudgeSource = "demo-oracle"
    refusals: str = "demo-oracle"
    batch_rows: int = 128

    def __post_init__(self) -> None:
        refuse(at_least(self, 1, "batch_rows"))


@dataclass(frozen=True, slots=True)
class TokenRewards:
    """Where token rewards come from: a preference fit made first, or a cost head (`cost`) on the base model."""

    __pydantic_config__ = STRICT

    source: RewardSource = "implicit"
    cost: CostPlan = field(default_factory=CostPlan)

    def __post_init__(self) -> None:
        refuse(one_of(self, "source", get_args(RewardSource)))


@dataclass(frozen=True, slots=True)
class Measuring:
    """How the held-out prompts are asked, and from which level of safety on an answer is safe."""

    __pydantic_config__ = STRICT

    safe_from: float = 0.5
    resamples: int = 1000
    sampling: SamplingPlan = field(default_factory=lambda: SamplingPlan(samples=1, temperature=0.7))

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 1, "resamples"),
            where(not 0 < self.safe_from <= 1, f"safe_from is {self.safe_from}; it must be above 0 and at most 1"),
        )


@dataclass(frozen=True, slots=True)
class EquilibrateConfig:
    """Everything that a run depends on. `seed` is that of every section which names none of its own.

    `rewards` are for the masked methods, `reinforce` for APPO, `router` for MidPO and `patch` for SafePatching. With
    `passes` the steps of a fit and of a router are so many passes over their pairs, of which 3 % warm up, whatever the
    plans say. `control_adapter` is the folder of an adapter that obeys control text, made by `rheostat train run`: the
    blend has it at its full weight.
    """

    __pydantic_config__ = STRICT

    name: AdapterName = "equilibrate"
    method: Method = "dpo"
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    base: BaseModel = field(default_factory=BaseModel)
    data: Data = field(default_factory=lambda: Data(mix=PAPERS_MIX))
    generate: Generate = field(default_factory=lambda: Generate(sampling=SamplingPlan(samples=8)))
    judge: Judging = field(default_factory=Judging)
    pairs: PairPlan = field(default_factory=PairPlan)
    rewards: TokenRewards = field(default_factory=TokenRewards)
    fit: FitPlan = field(
        default_factory=lambda: FitPlan(loss="dpo", learning_rate=5e-4, batch_rows=16, steps=300, max_repeats=1)
    )
    passes: float | None = None
    reinforce: ReinforcePlan = field(default_factory=ReinforcePlan)
    router: RouterPlan = field(default_factory=RouterPlan)
    patch: SafePatchPlan = field(default_factory=SafePatchPlan)
    measure: Measuring = field(default_factory=Measuring)
    control_adapter: str | None = None
    licence: str = "Apache-2.0"
    report_to: str = "tensorboard"

    def __post_init__(self) -> None:
        own = SETTINGS[self.method]
        refuse(
            above_zero(self, "passes") if self.passes is not None else (),
            said_of_data(self),
            said_of_sections(self),
            said_of_method(self, loss=own.get("fit", {}).get("loss"), aim=own.get("pairs", {}).get("aim", "none")),
        )

    @property
    def under_control_text(self) -> bool:
        """Whether what is trained reads control text, and so must be asked under it."""
        return self.pairs.control_share > 0 or self.method == "appo"


PAPERS_MIX: Final[Mapping[str, int]] = {"EHD": 350, "IHD": 105, "MHD": 35, "none": 105, "look-alike": 105}
"""10 : 3 : 1 (arXiv 2502.11555), and benign prompts, half of which look risky."""

SETTINGS: Final[Mapping[Method, Mapping[str, Any]]] = {
    "dpo": {"fit": {"loss": "dpo"}},
    "adpo": {"fit": {"loss": "dpo", "masking": {"rule": "segment"}}},
    "arj": {
        "pairs": {"per_prompt": 1},
        "fit": {"loss": "arj", "masking": {"rule": "segment"}},
        "rewards": {"source": "cost-head"},
    },
    "bfpo": {"pairs": {"order": "helpfulness", "aim": "bfpo", "alpha": 0.5}, "fit": {"loss": "bfpo", "tau": 0.01}},
    "appo": {
        "pairs": {"order": "safety", "borrow": False},
        "rewards": {"source": "cost-head"},
        "reinforce": {"masking": {"rule": "segment"}},
    },
    "midpo": {
        "passes": PASSES,
        "pairs": {"aim": "margin", "borrow": False},
        "fit": {
            "loss": "dpo",
            "beta": EXPERT.beta,
            "rank": EXPERT.rank,
            "lora_alpha": EXPERT.lora_alpha,
            "target_modules": ["down_proj"],
            "learning_rate": EXPERT.learning_rate,
            "weight_decay": EXPERT.weight_decay,
            "batch_rows": EXPERT.batch_rows,
        },
    },
    "safe-patching": {"pairs": {"order": "safety", "borrow": False}},
}
"""What each method's paper says, where a file says nothing else."""


DEFAULT: Final = "adpo"
"""The method of a file that names none."""


def read_equilibrate(path: Path, overrides: Sequence[str] = ()) -> EquilibrateConfig:
    """The configuration in a YAML file, over the settings of its method, with `section.key=value` overrides.

    Raises:
        BadConfig: the file cannot be read or does not fit; the message lists every error.
    """
    values = read_sections(path)
    for each in overrides:
        override(values, each)
    return parse_equilibrate(values, origin=str(path))


def parse_equilibrate(values: Mapping[str, Any], *, origin: str = "the configuration") -> EquilibrateConfig:
    """See `read_equilibrate`."""
    method = values.get("method", DEFAULT)
    if method not in SETTINGS:
        raise BadConfig(f"{origin}: method is {method!r}; it must be one of {', '.join(SETTINGS)}")
    seed = values.get("seed", 0)
    known = seeded(as_values(EquilibrateConfig()), seed if isinstance(seed, int) else 0)
    data = values.get("data")
    if isinstance(data, Mapping) and ("mix" in data or data.get("source", DEMO) != DEMO):
        known["data"]["mix"] = {}
    return parse(EquilibrateConfig, over(over(known, {"method": method, **SETTINGS[method]}), values), origin=origin)


def as_values(config: EquilibrateConfig) -> dict[str, Any]:
    """The resolved configuration as JSON values, which `parse_equilibrate` takes back."""
    values: dict[str, Any] = TypeAdapter(EquilibrateConfig).dump_python(config, mode="json")
    return values
