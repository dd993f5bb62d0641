"""What transformers alone says of a question of yes or no: the level that label_read should find."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.yes_no import Question


@dataclass(frozen=True, slots=True)
class Reference:
    """One plain forward of the conversation, the answer and the question, and the likeliest 20 tokens after them."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return cls(model, AutoTokenizer.from_pretrained(folder))

    def level(self, dialogue: Dialogue, question: Question) -> float:
        turns = [{"role": "assistant", "content": dialogue.answer}, {"role": "user", "content": question.ask}]
        text = self.tokenizer.apply_chat_template(
            [*dialogue.messages, *turns], tokenize=False, add_generation_prompt=True
        )
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            best = self.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1).topk(20)
        words = [self.tokenizer.decode([token]).strip().casefold() for token in best.indices.tolist()]
        told = list(zip(words, best.values.tolist(), strict=True))
        good, bad = (sum(p for word, p in told if word in side) for side in (question.good, question.bad))
        return float(good / (good + bad))
