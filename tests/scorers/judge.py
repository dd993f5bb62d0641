"""A tiny random sequence-classification model, such as a vLLM pooling server can serve, and its own levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from rheostat_server.scorers import Dialogue


def build_judge(folder: Path, *, base: Path) -> Path:
    """Writes a BERT of one label that reads by the tokenizer and the chat template of `base`.

    Its heads are 32 wide: vLLM's CPU kernels refuse other widths than a few, those of the demo's scorers (24) too.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(3)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            initializer_range=0.2,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.model_max_length = 256
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True)
class LocalJudge:
    """The same model by transformers alone; a level is the sigmoid of its logit."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path) -> "LocalJudge":
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        return cls(model, AutoTokenizer.from_pretrained(folder))

    def levels(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return _sigmoid(self.logits(dialogues))

    def levels_of_pairs(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return _sigmoid([self._logit(self.tokenizer(one.question, one.answer)) for one in dialogues])

    def levels_of_answers(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return _sigmoid([self._logit(self.tokenizer(one.answer)) for one in dialogues])

    def logits(self, dialogues: Sequence[Dialogue]) -> list[float]:
        return [self._logit(self._conversation(dialogue)) for dialogue in dialogues]

    def _conversation(self, dialogue: Dialogue) -> Any:
        messages = [*dialogue.messages, {"role": "assistant", "content": dialogue.answer}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return self.tokenizer(text, add_special_tokens=False)

    def _logit(self, read: Any) -> float:
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([read["input_ids"]])).logits
        return float(logits[0, 0])


def _sigmoid(logits: Sequence[float]) -> list[float]:
    levels: list[float] = torch.sigmoid(torch.tensor(logits)).tolist()
    return levels
