"""The reinforce stage: an adapter rewarded for answers whose levels lie near the dials, with TRL's RLOO or GRPO.

Read `reinforce` first.
"""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Final, TypeVar, get_args

from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn import Dropout
from transformers import set_seed

from rheostat_server.contract.dials import Dials, check_dial
from rheostat_server.contract.digest import adapter_digest
from rheostat_server.scorers import Dialogue, Scores
from rheostat_training.adapter_check import check_architecture, check_folder, check_settings
from rheostat_training.conditioning import CONTROL_TEXT
from rheostat_training.equilibrate.ama.appo import Masker, TokenRewards
from rheostat_training.equilibrate.ama.masks import Masking
from rheostat_training.evaluate import grid
from rheostat_training.fit_plan import Attention, Dtype, autocasts
from rheostat_training.limits import STRICT, a_seed, above_zero, at_least, one_of, refuse, where
from rheostat_training.lora import ADAPTER, linear_layers, save_adapter
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest, write_json
from rheostat_training.rows import Prompt
from rheostat_training.score import Judge
from rheostat_training.tracking import check_tracker, tracker
from rheostat_training.trl_trainers import Algorithm, Reward, StepLog, last_checkpoint, steps_of, train

Card = TypeVar("Card")
TAIL: Final = 10
"""Steps over which the first and the last reward of a report are averaged."""


@dataclass(frozen=True, slots=True)
class ReinforcePlan:
    """Algorithm, sampling, adapter and optimiser.

    Each step draws `prompts_per_step` prompts, each with dials of its own from the grid of `levels`, and `samples`
    answers to each; gradients are gathered over `batch_rows` answers at a time. `beta` weighs the divergence from the
    starting policy: with "rloo" summed over an answer's tokens and taken from its reward, with "grpo" a mean over
    tokens in the loss, so that the same beta holds much harder with "rloo". `rank` and `lora_alpha` are those of a
    fresh adapter; one to go on from keeps its own. The learning rate rises over `warmup_steps`, then falls to 0 along a
    line. `masking` says which tokens count, by rewards that only `rheostat train equilibrate` has (method appo). dtype
    "bfloat16" means autocast; "auto" is that on a GPU and float32 on a CPU.
    """

    __pydantic_config__ = STRICT

    algorithm: Algorithm = "rloo"
    steps: int = 100
    prompts_per_step: int = 8
    samples: int = 8
    batch_rows: int = 32
    temperature: float = 1.0
    max_new_tokens: int = 160
    beta: float = 0.02
    masking: Masking = field(default_factory=Masking)
    levels: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    rank: int = 16
    lora_alpha: float = 32.0
    learning_rate: float = 2e-4
    warmup_steps: int = 5
    clip: float = 1.0
    seed: int = 0
    dtype: Dtype = "auto"
    attention: Attention = "auto"
    checkpoint_every: int = 20

    def __post_init__(self) -> None:
        rows = self.step_rows
        refuse(
            one_of(self, "algorithm", get_args(Algorithm)),
            one_of(self, "dtype", get_args(Dtype)),
            one_of(self, "attention", get_args(Attention)),
            at_least(self, 1, "steps", "prompts_per_step", "batch_rows", "max_new_tokens", "rank", "checkpoint_every"),
            at_least(self, 0, "beta", "warmup_steps"),
            a_seed(self),
            above_zero(self, "temperature", "learning_rate", "clip", "lora_alpha"),
            where(self.samples < 2, f"samples is {self.samples}; it must be at least 2: answers are compared"),
            where(
                self.batch_rows > 0 and rows % self.batch_rows > 0,
                f"batch_rows is {self.batch_rows}; it must divide prompts_per_step times samples, {rows}",
            ),
            where(not self.levels, "levels is empty; it must name at least one level of a dial"),
        )
        for level in self.levels:
            check_dial("levels", level)

    @property
    def step_rows(self) -> int:
        return self.prompts_per_step * self.samples


@dataclass(frozen=True, slots=True)
class ReinforceReport:
    """What a run took and what it was paid.

    `truncated` answers ran into the token limit and `unjudged` ones the judge could not judge: neither had a reward.
    The rewards are means over the first and the last steps, at the sampling temperature and on training prompts, by
    the judge that paid them: ask `evaluate` whether the dials work. `kl` is the last steps' mean divergence from the
    starting policy per token; 0 where beta is 0, since it is not computed then.
    """

    steps: int
    answers: int
    unjudged: int
    truncated: int
    tokens: int
    seconds: float
    first_reward: float
    final_reward: float
    kl: float


def reinforce(
    base: LoadedModel,
    adapter: Path | None,
    prompts: Mapping[str, Prompt],
    judge: Judge,
    plan: ReinforcePlan,
    out: Path,
    *,
    base_name: str = "base",
    judge_name: str = "judge",
    token_rewards: TokenRewards | None = None,
    rewards_from: str = "unnamed",
    report_to: str = "tensorboard",
    progress: Progress | None = None,
) -> ReinforceReport:
    """Trains an adapter into `out/adapter`, from a PEFT folder or from a fresh one, with log and report beside it.

    The reward is −|S_s − s| − |S_h − h| − β·KL(π‖π₀) (our reconstruction). π₀ is the policy at the start, the
    base with the adapter that was given: TRL keeps a frozen copy of it. The base alone would pull back what a fit has
    taught, since the base obeys no dials. A fresh adapter changes nothing, so π₀ is the base there.

    An answer that the judge cannot judge, and one cut off at `max_new_tokens`, whose level is not known, has no
    reward: it counts neither in its group's mean nor in the loss.

    Where `plan.masking` is on, the loss counts the tokens that it keeps by `token_rewards` (`equilibrate.appo`), and
    `rewards_from` says in a word what these are of, for a resumed run to compare.

    A killed run goes on from its last checkpoint and ends with the same weights on the same machine. `base` is as
    before when it returns; the run happens on its device. `report_to` is a tracker of accelerate's, or "none".

    Raises:
        ValueError: there is no prompt, or no such tracker; or `plan.masking` is on without token rewards.
        AnotherRun: `out` holds a run of another adapter, other prompts, base weights, judge's name, `rewards_from`
            or another plan.
        NotServable: vLLM would not serve the adapter.
        NothingJudged: no answer of the first steps had a reward.
    """
    if not prompts:
        raise ValueError("prompts is empty; there must be at least one to answer")
    check_tracker(report_to)
    masker = _masker(plan, token_rewards)
    if adapter is not None:
        check_folder(adapter)
    facts = {"stage": "reinforce", "plan": plan_facts(plan), "base": base_name, "judge": judge_name}
    if masker:
        facts["token_rewards"] = rewards_from
    claim(out, {**facts, **_digests(base, adapter, prompts)})
    report = out / "report.json"
    if report.exists():
        _clean_up(out)
        return ReinforceReport(**json.loads(report.read_text()))
    with _lent(base, plan) as model, _policy(model, adapter, plan) as policy:
        log = _train(policy, base, prompts, judge, masker, plan, out, report_to, progress or Progress.auto())
        _save(policy, base_name, out / ADAPTER)
    result = _report(log, plan)
    write_json(report, plan_facts(result))
    _clean_up(out)
    return result


def _clean_up(out: Path) -> None:
    """Takes away what a run that has its report needs no more, also one that was killed in between."""
    for left in out.glob("checkpoint-*"):
        shutil.rmtree(left)


def distance_reward(scores: Scores, dials: Dials) -> float | None:
    """−|S_s − s| − |S_h − h|, from −2 to 0; None where a score is missing."""
    if scores.safety is None or scores.helpfulness is None:
        return None
    return -abs(scores.safety - dials.safety) - abs(scores.helpfulness - dials.helpfulness)


def draw_rows(prompts: Mapping[str, Prompt], plan: ReinforcePlan) -> list[dict[str, Any]]:
    """What is asked, `prompts_per_step` rows a step: a prompt with its control text, its id and its dials.

    Prompts come in shuffled rounds; settings of the dials are dealt from a shuffled deck, so that no corner is rare.
    """
    random = Random(f"reinforce {plan.seed}")
    ids = _dealt(list(prompts), random)
    settings = _dealt(grid(plan.levels), random)
    rows: list[dict[str, Any]] = []
    for _ in range(plan.steps * plan.prompts_per_step):
        id, dials = next(ids), next(settings)
        asked = CONTROL_TEXT.apply(prompts[id].messages, dials)
        rows.append({"prompt": asked, "prompt_id": id, "safety": dials.safety, "helpfulness": dials.helpfulness})
    return rows


def rewards(judge: Judge, prompts: Mapping[str, Prompt], tokenizer: Any, end_ids: Collection[int]) -> Reward:
    """TRL's reward function: its arguments are one value an answer, and the columns of `draw_rows`."""

    def reward(
        completion_ids: Sequence[Sequence[int]],
        prompt_id: Sequence[str],
        safety: Sequence[float],
        helpfulness: Sequence[float],
        log_metric: Any,
        **_: Any,
    ) -> list[float | None]:
        texts = [text.strip() for text in tokenizer.batch_decode(completion_ids, skip_special_tokens=True)]
        finished = [bool(ids) and ids[-1] in end_ids for ids in completion_ids]
        places = [place for place, whole in enumerate(finished) if whole]
        scores = judge.judge([Dialogue(prompts[prompt_id[place]].messages, texts[place]) for place in places])
        result: list[float | None] = [None] * len(texts)
        for place, score in zip(places, scores, strict=True):
            dials = Dials(safety=safety[place], helpfulness=helpfulness[place])
            result[place] = distance_reward(score, dials)
        log_metric("answers", len(texts))
        log_metric("truncated", len(texts) - len(places))
        log_metric("unjudged", result.count(None) - (len(texts) - len(places)))
        return result

    return reward


def _masker(plan: ReinforcePlan, token_rewards: TokenRewards | None) -> Masker | None:
    """What makes the masks of a run, if it has any.

    Raises:
        ValueError: masks are asked for, and there are no token rewards.
    """
    if not plan.masking.on:
        return None
    if token_rewards is None:
        raise ValueError(
            f"masking.rule is {plan.masking.rule!r}, and there are no token rewards; give those of a cost head or of a "
            "preference fit, or masking.rule none"
        )
    return Masker(plan.masking, token_rewards, plan.seed)


def _dealt(cards: list[Card], random: Random) -> Iterator[Card]:
    while True:
        random.shuffle(cards)
        yield from cards


def _train(
    policy: Any,
    base: LoadedModel,
    prompts: Mapping[str, Prompt],
    judge: Judge,
    masker: Masker | None,
    plan: ReinforcePlan,
    out: Path,
    report_to: str,
    progress: Progress,
) -> list[dict[str, Any]]:
    last = last_checkpoint(out)
    with (
        progress.task(f"reinforce {plan.algorithm}", plan.steps, unit="steps") as task,
        tracker(report_to, out, plan_facts(plan), first_step=steps_of(last) if last else 0) as track,
    ):
        log = StepLog(out / "log.jsonl", task, track)
        train(
            plan.algorithm,
            policy,
            base.tokenizer,
            rewards(judge, prompts, base.tokenizer, base.end_ids),
            Dataset.from_list(draw_rows(prompts, plan)),
            log,
            out,
            last,
            masker,
            use_cpu=base.device.type == "cpu",
            bf16=autocasts(plan.dtype, base.device.type),
            **_settings(plan),
        )
    return log.rows


def _settings(plan: ReinforcePlan) -> dict[str, Any]:
    """A plan in TRL's words.

    Dropout is off, so that the policy that answers is the one that learns. Answers cut off are masked from the loss
    (DAPO, arXiv 2503.14476), as they have no reward either.
    """
    return {
        "max_steps": plan.steps,
        "num_generations": plan.samples,
        "per_device_train_batch_size": plan.batch_rows,
        "gradient_accumulation_steps": plan.step_rows // plan.batch_rows,
        "shuffle_dataset": False,
        "temperature": plan.temperature,
        "max_completion_length": plan.max_new_tokens,
        "mask_truncated_completions": True,
        "beta": plan.beta,
        **({"loss_type": "dapo"} if plan.masking.on and plan.algorithm == "grpo" else {}),
        "learning_rate": plan.learning_rate,
        "warmup_steps": plan.warmup_steps,
        "max_grad_norm": plan.clip,
        "disable_dropout": True,
        "gradient_checkpointing": False,
        "save_steps": plan.checkpoint_every,
        "seed": plan.seed,
        "dataloader_pin_memory": False,
    }


def _digests(base: LoadedModel, adapter: Path | None, prompts: Mapping[str, Prompt]) -> dict[str, str | None]:
    """What a run starts from."""
    return {
        "weights": base.digest(),
        "adapter": adapter_digest(adapter) if adapter else None,
        "prompts": rows_digest(prompts.values()),
    }


@contextmanager
def _policy(model: Any, adapter: Path | None, plan: ReinforcePlan) -> Iterator[Any]:
    """The base model with the adapter that learns; without it afterwards."""
    policy = _fresh(model, plan) if adapter is None else PeftModel.from_pretrained(model, adapter, is_trainable=True)
    policy.peft_config["default"].base_model_name_or_path = None  # or PEFT asks the Hub for it at each checkpoint
    try:
        yield policy
    finally:
        policy.unload()


def _save(policy: Any, base_name: str, folder: Path) -> None:
    """The adapter that has learnt, without TRL's frozen copy of the one it started from."""
    if "ref" in policy.peft_config:
        policy.delete_adapter("ref")
    policy.peft_config["default"].base_model_name_or_path = base_name
    save_adapter(policy, folder)


def _fresh(model: Any, plan: ReinforcePlan) -> Any:
    """A LoRA adapter on every linear layer that a fit trains, which changes nothing yet."""
    check_architecture(type(model).__name__)
    set_seed(plan.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.rank,
        lora_alpha=plan.lora_alpha,  # pyright: ignore[reportArgumentType]
        target_modules=linear_layers(model),
    )
    check_settings(config.to_dict())
    return get_peft_model(model, config)


@contextmanager
def _lent(base: LoadedModel, plan: ReinforcePlan) -> Iterator[Any]:
    """The base model for TRL, which patches its forward, its dropout, its padding and its cache; then as before."""
    model, tokenizer = base.model, base.tokenizer
    attention = model.config._attn_implementation
    padding = model.config.pad_token_id, model.generation_config.pad_token_id, tokenizer.pad_token
    cached = model.config.use_cache
    dropouts = [(module, module.p) for module in model.modules() if isinstance(module, Dropout)]
    learning = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    if plan.attention != "auto":
        model.set_attn_implementation(plan.attention)
    try:
        yield model
    finally:
        vars(model).pop("forward", None)
        model.set_attn_implementation(attention)
        model.config.pad_token_id, model.generation_config.pad_token_id, tokenizer.pad_token = padding
        model.config.use_cache = cached
        for module, p in dropouts:
            module.p = p
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        model.eval()


def _report(log: Sequence[Mapping[str, Any]], plan: ReinforcePlan) -> ReinforceReport:
    paid = [row["reward"] for row in log if row["reward"] is not None]
    spans = [row["kl"] for row in log[-TAIL:] if row["kl"] is not None]
    return ReinforceReport(
        steps=plan.steps,
        answers=sum(row["answers"] for row in log),
        unjudged=sum(row["unjudged"] for row in log),
        truncated=sum(row["truncated"] for row in log),
        tokens=log[-1]["tokens"],
        seconds=round(sum(row["seconds"] for row in log), 1),
        first_reward=round(fmean(paid[:TAIL]), 5),
        final_reward=round(fmean(paid[-TAIL:]), 5),
        kl=round(fmean(spans), 5) if spans else 0.0,
    )
