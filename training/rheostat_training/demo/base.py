"""The demo's base model: a small Llama, its optimisers and its schedule, trained from scratch on the corpus."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Muon, Optimizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rheostat_training import checkpoint
from rheostat_training.checkpoint import FitState, Weights, trained_weights
from rheostat_training.demo.batches import IGNORED, Batch, batches
from rheostat_training.demo.tokenizer import MAX_LENGTH, save_tokenizer
from rheostat_training.progress import Progress
from rheostat_training.publish import with_ordinary_permissions

SERVED_TEMPERATURE = 0.7
"""Of a request that names none, by the model's generation_config.json; the demo's figures are taken at it."""


@dataclass(frozen=True, slots=True)
class BaseShape:
    """The size of the model; two query heads share one key-value head."""

    hidden: int = 256
    inner: int = 640
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2


@dataclass(frozen=True, slots=True)
class BasePlan:
    """How the base model is trained; matrices by Muon, embeddings and norms by AdamW.

    Both rates warm up, stay, and fall to zero in the last `cooldown` share of the steps.
    """

    shape: BaseShape = BaseShape()
    steps: int = 9_000
    rows: int = 24
    matrix_rate: float = 1e-2
    vector_rate: float = 1e-2
    weight_decay: float = 0.01
    warmup: int = 50
    cooldown: float = 0.7
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 100


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the model's weights by their names, the optimiser that trains them, and its highest rate."""

    weights: Weights
    optimiser: Optimizer
    rate: float


@dataclass(frozen=True, slots=True)
class Training:
    """The model, its parts, and how far they have come."""

    model: LlamaForCausalLM
    parts: tuple[Part, ...]
    state: FitState

    @classmethod
    def begin(cls, model: LlamaForCausalLM, plan: BasePlan, out: Path) -> "Training":
        """From the checkpoint in `out`, if there is one."""
        parts = _parts(model, plan)
        return cls(model, parts, checkpoint.load(out, *((part.weights, part.optimiser) for part in parts)))

    def checkpoint(self, out: Path) -> None:
        tensors = checkpoint.snapshot(*((part.weights, part.optimiser) for part in self.parts))
        checkpoint.save(out, self.state, tensors)


def fit_base(tokenizer: PreTrainedTokenizerFast, plan: BasePlan, out: Path, *, progress: Progress) -> Path:
    """Train the base model and write it to `out` in bfloat16; a killed run goes on from its checkpoint there."""
    out.mkdir(parents=True, exist_ok=True)
    training = Training.begin(new_model(tokenizer, plan.shape, plan.seed), plan, out)
    state = training.state
    losses: list[float] = []
    stream = batches(tokenizer, seed=plan.seed, rows=plan.rows, first=state.step)
    with progress.task("base model", plan.steps, unit="steps") as task:
        task.skip(state.step)
        for batch in _until(stream, plan.steps - state.step):
            losses.append(_step(training, batch, plan))
            task.advance(1, note=f"loss {sum(losses[-50:]) / len(losses[-50:]):.4f}")
            if state.step % plan.checkpoint_every == 0:
                training.checkpoint(out)
    _write(training.model, tokenizer, out)
    (out / checkpoint.FILE).unlink(missing_ok=True)
    return out


def new_model(tokenizer: PreTrainedTokenizerFast, shape: BaseShape, seed: int) -> LlamaForCausalLM:
    """An untrained model of the given shape."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,  # pyright: ignore[reportArgumentType]
        pad_token_id=tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # on short rows its backward is the faster one on a CPU
    return model


def loss_of(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Mean cross-entropy over what the assistant says; the output layer runs on those tokens alone."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
        said = batch.targets != IGNORED
        logits = model.lm_head(hidden[said])
    return cross_entropy(logits.float(), batch.targets[said])


def rate_at(step: int, plan: BasePlan) -> float:
    """The learning rate's factor: a short warm-up, a plateau, and a fall to zero along half a cosine."""
    length = plan.cooldown * plan.steps
    done = max(0.0, (step - (plan.steps - length)) / length)
    return min((step + 1) / plan.warmup, 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def _parts(model: nn.Module, plan: BasePlan) -> tuple[Part, Part]:
    learning = trained_weights(model)
    matrices = {name: weight for name, weight in learning.items() if weight.ndim == 2 and "embed" not in name}
    others = {name: weight for name, weight in learning.items() if name not in matrices}
    muon = Muon(matrices.values(), lr=plan.matrix_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw")
    adam = AdamW(others.values(), lr=plan.vector_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return Part(matrices, muon, plan.matrix_rate), Part(others, adam, plan.vector_rate)


def _step(training: Training, batch: Batch, plan: BasePlan) -> float:
    factor = rate_at(training.state.step, plan)
    for part in training.parts:
        part.optimiser.param_groups[0]["lr"] = part.rate * factor
    loss = loss_of(training.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(training.model.parameters(), plan.clip)
    for part in training.parts:
        part.optimiser.step()
        part.optimiser.zero_grad()
    training.state.step += 1
    return loss.item()


def _until(stream: Iterator[Batch], count: int) -> Iterator[Batch]:
    for _ in range(count):
        yield next(stream)


def _write(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    model.generation_config.update(do_sample=True, temperature=SERVED_TEMPERATURE)
    model.to(torch.bfloat16).save_pretrained(out)  # pyright: ignore[reportArgumentType]
    save_tokenizer(tokenizer, out)
    with_ordinary_permissions(out)
