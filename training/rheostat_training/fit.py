"""The fit stage: a LoRA adapter that obeys the dials, trained on distilled answers with CLM, MATE or ExMATE."""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from torch.nn import Linear

from rheostat_training.adapter_check import CONFIG, check_folder, check_settings
from rheostat_training.losses import LOSSES, NEEDS_NEGATIVES, kl_to_reference, mean_log_probs
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import claim, plan_facts, rows_digest, write_json
from rheostat_training.rows import Example, Prompt
from rheostat_training.training_set import Anchor, Dither, Positive, StepRows, TrainingRow, build_training_set, steps

WIDTH_STEP = 16
LossName = Literal["clm", "mate", "exmate"]
Dtype = Literal["float32", "bfloat16"]
Attention = Literal["sdpa", "eager"]


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Loss, adapter and optimiser.

    The first `head_steps` steps learn from the first `head_tokens` of each answer alone: they bind the dials where
    answers settle their levels early. `anchors` whole answers a step hold what follows the head to what the base says
    without control text, by `anchor_weight` times the divergence of the two. The adapter is saved at `strength` times
    what it learnt, by its `lora_alpha`: below 1 trades reach for form. `batch_rows` counts positives; dtype
    "bfloat16" means autocast. On a CPU, for rows of about a hundred tokens, "eager" attention takes two thirds of
    the time of "sdpa", whose backward is slow.
    """

    loss: LossName = "exmate"
    alpha: float = 0.05
    negatives_per_positive: float = 0.5
    negative_distance: float = 0.5
    anchors: int = 0
    anchor_weight: float = 1.0
    dither_share: float = 0.0
    dither_width: float = 0.25
    head_steps: int = 0
    head_tokens: int = 24
    rank: int = 16
    lora_alpha: float = 32.0
    strength: float = 1.0
    dropout: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup_steps: int = 20
    steps: int = 600
    batch_rows: int = 32
    max_repeats: int = 8
    clip: float = 1.0
    seed: int = 0
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name, known in (("loss", LossName), ("dtype", Dtype), ("attention", Attention)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(get_args(known))}")
        for name in ("rank", "steps", "batch_rows", "head_tokens", "max_repeats", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "alpha",
            "negatives_per_positive",
            "negative_distance",
            "dither_share",
            "dither_width",
            "anchors",
            "anchor_weight",
            "head_steps",
            "dropout",
            "weight_decay",
            "warmup_steps",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("learning_rate", "clip", "lora_alpha", "strength"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def dither(self) -> Dither:
        return Dither(self.dither_share, self.dither_width, self.seed)

    @property
    def negatives(self) -> float:
        return self.negatives_per_positive if self.loss in NEEDS_NEGATIVES and self.alpha else 0.0


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a fit took. The loss says that training ran, never that the dials work: ask `evaluate`."""

    steps: int
    tokens: int
    seconds: float
    positives: int
    final_loss: float


def fit(
    base: LoadedModel,
    prompts: Mapping[str, Prompt],
    examples: Sequence[Example],
    plan: FitPlan,
    out: Path,
    *,
    base_name: str = "base",
    progress: Progress | None = None,
) -> FitReport:
    """Trains an adapter into `out/adapter`, with `out/log.jsonl` and `out/report.json` beside it.

    A killed run goes on from `out/checkpoint.pt` and ends with the same weights. `base` is as before when it returns;
    `base_name` is what the adapter's configuration calls the base model.

    Raises:
        AnotherRun: `out` holds a fit of other examples, prompts, base weights or another plan.
        NotServable: vLLM would not serve the adapter.
    """
    report = out / "report.json"
    rows = {"examples": rows_digest(examples), "prompts": rows_digest(prompts.values())}
    claim(out, {"stage": "fit", "plan": plan_facts(plan), "base": base_name, "weights": base.digest(), **rows})
    if report.exists():
        return FitReport(**json.loads(report.read_text()))
    positives = build_training_set(
        base.tokenizer, prompts, examples, negative_distance=plan.negative_distance, dither=plan.dither
    )
    attention = base.model.config._attn_implementation
    base.model.set_attn_implementation(plan.attention)
    model = _with_lora(base.model, plan, base_name)
    try:
        result = _train(model, positives, plan, out, progress or Progress.auto())
        model.peft_config["default"].lora_alpha = plan.lora_alpha * plan.strength
        save_adapter(model, out / "adapter")
    finally:
        model.unload()
        base.model.set_attn_implementation(attention)
        base.model.eval()
    write_json(report, plan_facts(result))
    (out / "checkpoint.pt").unlink(missing_ok=True)
    return result


def learning_rate(plan: FitPlan, step: int) -> float:
    """Linear warmup, then half a cosine down to a hundredth."""
    if step < plan.warmup_steps:
        return plan.learning_rate * (step + 1) / plan.warmup_steps
    share = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
    return plan.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def step_loss(model: Any, rows: StepRows, plan: FitPlan) -> Tensor:
    """The loss of one step, from one forward over positives and negatives together."""
    logs = row_log_probs(model, [*rows.positives, *rows.negatives], plan.dtype)
    loss = LOSSES[plan.loss](logs[: len(rows.positives)], logs[len(rows.positives) :], plan.alpha)
    return loss + plan.anchor_weight * anchor_loss(model, rows.anchors, plan.dtype) if rows.anchors else loss


def anchor_loss(model: Any, anchors: Sequence[Anchor], dtype: str) -> Tensor:
    """How far the model under dials has moved from the base model without control text, past the answers' heads."""
    with torch.no_grad(), model.disable_adapter():
        reference = _answer_logs(model, [anchor.plain for anchor in anchors], dtype)
    return kl_to_reference(_answer_logs(model, [anchor.dialled for anchor in anchors], dtype), reference)


def row_log_probs(model: Any, rows: Sequence[TrainingRow], dtype: str = "float32") -> Tensor:
    """ℓ(y|c) of each row, [rows]."""
    return mean_log_probs(*_answer_logits(model, rows, dtype))


def _answer_logs(model: Any, rows: Sequence[TrainingRow], dtype: str) -> Tensor:
    """Log probabilities over the vocabulary at every answer token that counts, [tokens, vocabulary]."""
    logits, _, mask = _answer_logits(model, rows, dtype)
    return logits[mask].float().log_softmax(-1)


def _answer_logits(model: Any, rows: Sequence[TrainingRow], dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [rows, tokens, vocabulary], target ids and mask [rows, tokens].

    Rows are padded on the right, where a causal model needs no mask, and logits are made only from the first answer
    position of any row on. Both widths are rounded up, since memory grows with every new shape on a CPU.
    """
    device = next(model.parameters()).device
    width = _rounded(max(row.encoded.length for row in rows) - 1) + 1
    kept = min(width - 1, _rounded(width - min(len(row.encoded.prompt_ids) for row in rows)))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        encoded = row.encoded
        ids[number, : encoded.length] = torch.tensor((*encoded.prompt_ids, *encoded.answer_ids))
        mask[number, len(encoded.prompt_ids) + row.masked : encoded.length] = True
    ids, mask = ids.to(device), mask.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=kept).logits
    return logits, ids[:, -kept:], mask[:, -kept:]


def _rounded(tokens: int) -> int:
    return -(-tokens // WIDTH_STEP) * WIDTH_STEP


def save_adapter(model: Any, folder: Path) -> Path:
    """PEFT's two files, the same bytes for the same weights, and nothing that names this machine; checked for vLLM.

    Raises:
        NotServable: see `adapter_check`.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, save_embedding_layers=False)
    (partial / "README.md").unlink(missing_ok=True)
    _sort_target_modules(partial / CONFIG)
    check_folder(partial)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.replace(folder)


def _sort_target_modules(path: Path) -> None:
    """PEFT writes a set, in an order that changes from process to process, and with it the adapter's digest."""
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def linear_layers(model: Any) -> list[str]:
    """The last names of every linear layer but the output's, which vLLM matches adapters by."""
    output = model.get_output_embeddings()
    layers = [name for name, module in model.named_modules() if isinstance(module, Linear) and module is not output]
    return sorted({name.rsplit(".", 1)[-1] for name in layers})


def _with_lora(model: Any, plan: FitPlan, base_name: str) -> Any:
    torch.manual_seed(plan.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.rank,
        lora_alpha=plan.lora_alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=plan.dropout,
        target_modules=linear_layers(model),
    )
    check_settings(config.to_dict())
    wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    return wrapped


def _train(model: Any, positives: Sequence[Positive], plan: FitPlan, out: Path, progress: Progress) -> FitReport:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=plan.weight_decay)
    state = _Checkpoint.load(out, model, optimiser)
    batches = steps(
        positives,
        batch_rows=plan.batch_rows,
        negatives_per_positive=plan.negatives,
        max_repeats=plan.max_repeats,
        seed=plan.seed,
        anchors=plan.anchors,
        anchor_after=plan.head_tokens,
        first=state.step,
    )
    model.train()
    with progress.task(f"fit {plan.loss}", plan.steps, unit="steps") as task, (out / "log.jsonl").open("a") as log:
        task.skip(state.step)
        while state.step < plan.steps:
            started = time.monotonic()
            rows = next(batches)
            if state.step < plan.head_steps:
                rows = rows.heads(plan.head_tokens)
            state.loss = _one_step(model, optimiser, weights, rows, plan, state.step)
            state.step += 1
            state.tokens += rows.tokens
            state.seconds += time.monotonic() - started
            print(json.dumps({"step": state.step, "loss": round(state.loss, 5)}), file=log, flush=True)
            task.advance(note=f"loss {state.loss:.3f}")
            if state.step % plan.checkpoint_every == 0:
                state.save(out, model, optimiser)
    model.eval()
    return FitReport(state.step, state.tokens, round(state.seconds, 1), len(positives), state.loss)


def _one_step(
    model: Any, optimiser: torch.optim.Optimizer, weights: list[Tensor], rows: StepRows, plan: FitPlan, step: int
) -> float:
    torch.manual_seed(plan.seed * 1_000_003 + step)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(plan, step)
    loss = step_loss(model, rows, plan)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(weights, plan.clip, error_if_nonfinite=True)
    optimiser.step()
    return float(loss.detach())


@dataclass(slots=True)
class _Checkpoint:
    """Where a fit stands. Batches and dropout follow from the step's number, so no generator is kept."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan

    @classmethod
    def load(cls, out: Path, model: Any, optimiser: torch.optim.Optimizer) -> "_Checkpoint":
        path = out / "checkpoint.pt"
        log = out / "log.jsonl"
        if not path.exists():
            log.unlink(missing_ok=True)
            return cls()
        saved = torch.load(path, weights_only=True)
        set_peft_model_state_dict(model, saved["weights"])
        optimiser.load_state_dict(saved["optimiser"])
        state = cls(**saved["state"])
        log.write_text("".join(line + "\n" for line in log.read_text().splitlines()[: state.step]))
        return state

    def save(self, out: Path, model: Any, optimiser: torch.optim.Optimizer) -> None:
        partial = out / "checkpoint.partial"
        state = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "loss": self.loss}
        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        torch.save({"weights": weights, "optimiser": optimiser.state_dict(), "state": state}, partial)
        partial.replace(out / "checkpoint.pt")
