"""A small classifier of prompts into the four groups: a frozen sentence encoder and one linear head."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.head import probabilities
from rheostat_training.equilibrate.fdc.group import BY_BITS, GroupedPrompt, Grouping
from rheostat_training.progress import Progress
from rheostat_training.resume import write_json
from rheostat_training.rows import Prompt, read_rows, write_rows
from rheostat_training.stage import tree_digest

CLASSES: Final = BY_BITS
"""The head's outputs in their order."""

CLASSIFIER_FILE: Final = "classifier.json"
HEAD_FILE: Final = "head.safetensors"
ENCODER_FOLDER: Final = "encoder"
SCHEMA_VERSION: Final = 1
MAX_TOKENS: Final = 128
SHARD_ROWS: Final = 1024

Matrix = NDArray[np.float64]


@torch.inference_mode()
def prompt_vectors(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    max_tokens: int = MAX_TOKENS,
    told: Callable[[int], object] | None = None,
) -> Matrix:
    """[texts, 2 · width]: the mean of the word embeddings beside the mean of the last layer's states, each at length 1.

    The first says which words there are, the second what is meant. Only the first `max_tokens` tokens are read. `told`
    is called with the size of each batch that is done.
    """
    result = np.zeros((len(texts), 2 * encoder.width))
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    for start in range(0, len(order), encoder.batch_rows):
        chunk = order[start : start + encoder.batch_rows]
        result[chunk] = _batch(encoder, [texts[at] for at in chunk], max_tokens)
        if told:
            told(len(chunk))
    return result


def _batch(encoder: Encoder, texts: Sequence[str], max_tokens: int) -> Matrix:
    asked: Any = encoder.tokenizer(texts, truncation=True, max_length=max_tokens, padding=True, return_tensors="pt")
    asked = asked.to(encoder.model.device)
    states = encoder.model(**asked, output_hidden_states=True).hidden_states
    kept = asked["attention_mask"][..., None].float()
    means = [(layer.float() * kept).sum(1) / kept.sum(1).clamp(min=1) for layer in (states[0], states[-1])]
    values: Matrix = (
        torch.cat([torch.nn.functional.normalize(mean, dim=-1) for mean in means], 1).cpu().double().numpy()
    )
    return values


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """logits = vectors · weightᵀ + bias; weight [4, columns], bias [4]."""

    weight: Matrix
    bias: Matrix

    def probabilities(self, vectors: Matrix) -> Matrix:
        """[rows, 4], in the order of CLASSES."""
        return probabilities(vectors @ self.weight.T + self.bias)


@dataclass(frozen=True, slots=True)
class GroupClassifier:
    """Tells the groups of texts; `digest` is that of its folder."""

    encoder: Encoder
    head: LinearHead
    digest: str

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> "GroupClassifier":
        """Raises ValueError where the folder holds no classifier, or one of another schema or other classes."""
        path = folder / CLASSIFIER_FILE
        if not path.exists():
            raise ValueError(f"{folder} has no {CLASSIFIER_FILE}; `rheostat train groups fit` makes one")
        facts = json.loads(path.read_text())
        known = {"schema_version": SCHEMA_VERSION, "classes": [group.value for group in CLASSES]}
        if wrong := [name for name, value in known.items() if facts.get(name) != value]:
            name = wrong[0]
            raise ValueError(f"{path} has {name} {facts.get(name)!r}; it must be {known[name]!r}: fit it again")
        weights = {name: values.astype(np.float64) for name, values in load_file(folder / HEAD_FILE).items()}
        encoder = Encoder.load(folder / ENCODER_FOLDER, device=device)
        return cls(encoder, LinearHead(weights["weight"], weights["bias"]), tree_digest(folder))

    def probabilities(self, texts: Sequence[str], *, told: Callable[[int], object] | None = None) -> Matrix:
        """[texts, 4], in the order of CLASSES."""
        return self.head.probabilities(prompt_vectors(self.encoder, texts, told=told))

    def identity(self) -> str:
        return f"classifier {self.digest}"

    def label(self, prompts: Sequence[Prompt], folder: Path, *, progress: Progress) -> Grouping:
        """The likeliest group of each prompt, by its last user message; see `groups.Labeller`."""
        shards: list[Path] = []
        with progress.task("label", len(prompts), unit="prompts") as task:
            for start in range(0, len(prompts), SHARD_ROWS):
                chunk = prompts[start : start + SHARD_ROWS]
                shards.append(folder / f"{start // SHARD_ROWS:05d}.jsonl")
                if shards[-1].exists():
                    task.skip(len(chunk))
                else:
                    found = self.probabilities([prompt.text for prompt in chunk], told=task.advance)
                    write_rows(shards[-1], [_row(prompt, row) for prompt, row in zip(chunk, found, strict=True)])
        return Grouping([row for shard in shards for row in read_rows(shard, GroupedPrompt)], {})


def _row(prompt: Prompt, found: NDArray[np.float64]) -> GroupedPrompt:
    best = int(found.argmax())
    return GroupedPrompt(prompt.id, prompt.messages, CLASSES[best], sure=round(float(found[best]), 4))


def save_classifier(encoder: Encoder, head: LinearHead, folder: Path) -> Path:
    """Writes what `GroupClassifier.load` reads; the JSON file comes last, so that a folder with it is whole."""
    encoder.model.save_pretrained(folder / ENCODER_FOLDER)
    encoder.tokenizer.save_pretrained(folder / ENCODER_FOLDER)
    weights = {"weight": head.weight, "bias": head.bias}
    save_file({name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}, folder / HEAD_FILE)
    facts = {"schema_version": SCHEMA_VERSION, "classes": [group.value for group in CLASSES]}
    return write_json(folder / CLASSIFIER_FILE, facts)
