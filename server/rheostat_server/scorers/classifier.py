"""Sequence-classification models of transformers: dialogues in, raw outputs or levels out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from rheostat_server.scorers import Dialogue, Reads
from rheostat_server.scorers.reading import Reader, Row, pad_right, reads_by_default
from rheostat_server.scorers.scales import Gauge

Outputs = list[float]
"""One row of raw outputs, in the order of the model's labels."""

MOST_TOKENS: Final = 1 << 20
"""A tokenizer that gives a greater `model_max_length` does not know its model's."""


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model, its tokenizer, and what it reads: by `reads`, or as suits its tokenizer; at most `max_tokens` of it.

    An answer that does not fit whole is judged by a part of it with `cut_answers`, and not at all without.
    """

    model: Any
    tokenizer: Any
    batch_rows: int = 128
    reads: Reads | None = None
    max_tokens: int | None = None
    cut_answers: bool = False

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        batch_rows: int = 128,
        device: str = "cpu",
        dtype: str = "auto",
        reads: Reads | None = None,
        max_tokens: int | None = None,
        cut_answers: bool = False,
        trust_remote_code: bool = False,
    ) -> "Classifier":
        """The model of a folder, from safetensors alone; with dtype "auto", as its weights are stored.

        Raises:
            ValueError: it has no token to pad with, or is to read by a chat template and has none.
        """
        trust = {"trust_remote_code": trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
        if reads == "chat" and tokenizer.chat_template is None:
            raise ValueError(f"reads is 'chat', and {folder} has no chat template; give pair or answer")
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, use_safetensors=True, **trust)
        check_padding(folder, model.config)
        return cls(model.to(device).eval(), tokenizer, batch_rows, reads, max_tokens, cut_answers)

    @property
    def labels(self) -> list[str]:
        """The names of the outputs in their order."""
        names: Mapping[int, str] = self.model.config.id2label
        return [names[at] for at in range(self.model.config.num_labels)]

    @property
    def form(self) -> Reads:
        """What it reads."""
        return self.reads or reads_by_default(self.tokenizer)

    def levels(self, dialogues: Sequence[Dialogue]) -> list[float | None]:
        """sigmoid(logit) of a model of one output; None where it could not judge."""
        return [None if outputs is None else ONE_LOGIT.level(outputs) for outputs in self.outputs(dialogues)]

    @torch.inference_mode()
    def outputs(self, dialogues: Sequence[Dialogue]) -> list[Outputs | None]:
        """Raw outputs, computed in batches of like length; None where a dialogue cannot be read."""
        rows = self._read(dialogues)
        result: list[Outputs | None] = [None] * len(rows)
        for places, batch in _by_length(rows, self.batch_rows):
            for at, outputs in zip(places, self._logits(batch).tolist(), strict=True):
                result[at] = outputs
        return result

    def _read(self, dialogues: Sequence[Dialogue]) -> list[Row | None]:
        return Reader(self.tokenizer, self.form, self.longest, self.cut_answers).rows(dialogues)

    def _logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """[rows, labels]."""
        tokens, mask = pad_right([ids for ids, _ in rows], self.model.config.get_text_config().pad_token_id)
        more = {"token_type_ids": pad_right([types for _, types in rows], 0)[0]} if self._typed else {}
        inputs = {"input_ids": tokens, "attention_mask": mask, **more}
        logits: torch.Tensor = self.model(
            **{name: value.to(self.model.device) for name, value in inputs.items()}
        ).logits
        return logits.float().cpu()

    @property
    def longest(self) -> int:
        """The least of what is known of how much it can read.

        Raises:
            ValueError: nothing is known.
        """
        known = (self._places, self.tokenizer.model_max_length, self.max_tokens)
        found = [int(tokens) for tokens in known if tokens is not None and tokens <= MOST_TOKENS]
        if not found:
            raise ValueError("max_tokens is not given, and neither model nor tokenizer tell how much it reads; give it")
        return min(found)

    @property
    def _places(self) -> int | None:
        """How many tokens have a position. RoBERTa's kind counts from behind that of the token that pads."""
        places: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        tables = (module for name, module in self.model.named_modules() if name.endswith("position_embeddings"))
        padding = next((table.padding_idx for table in tables if isinstance(table, torch.nn.Embedding)), None)
        return places if padding is None or places is None else places - padding - 1

    @property
    def _typed(self) -> bool:
        return "token_type_ids" in signature(self.model.forward).parameters


ONE_LOGIT: Final = Gauge((0,), "sigmoid")


def check_one_output(folder: Path) -> None:
    """Whether a folder's model gives the one logit that `levels` reads, as far as its configuration tells.

    Raises:
        ValueError, OSError: it does not, or has no token to pad with; the message says why.
    """
    config = AutoConfig.from_pretrained(folder)
    if config.num_labels != 1:
        raise ValueError(f"{folder} has {config.num_labels} labels; a scorer has 1, the level's logit")
    check_padding(folder, config)


def check_padding(folder: Path, config: Any) -> None:
    """Raises ValueError if there is no token to pad with."""
    if config.get_text_config().pad_token_id is None:
        raise ValueError(f"{folder} names no pad_token_id in its config.json; answers of several lengths need one")


def _by_length(rows: Sequence[Row | None], size: int) -> Iterator[tuple[list[int], list[Row]]]:
    """Batches of at most `size` rows of like length, with their places."""
    there = [(at, row) for at, row in enumerate(rows) if row is not None]
    there.sort(key=lambda found: len(found[1][0]))
    for start in range(0, len(there), size):
        batch = there[start : start + size]
        yield [at for at, _ in batch], [row for _, row in batch]
