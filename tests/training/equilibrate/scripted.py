"""A sampler that answers as a script says, a prompt writer, and a tiny encoder with nothing learned in it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from rheostat_training.equilibrate.fdc.group import Group, GroupedPrompt
from rheostat_training.generate import SamplingPlan, consecutive
from rheostat_training.rows import Prompt, Request, Sample

Script = Callable[[str, SamplingPlan], str]


@dataclass
class ScriptedSampler:
    """Answers with `script(what it was asked, plan)`; records what it was asked, and dies at the batch `dies_at`."""

    script: Script
    dies_at: int | None = None
    finished: bool = True
    asked: list[str] = field(default_factory=list)
    plans: list[SamplingPlan] = field(default_factory=list)

    def identity(self) -> str:
        return "a script"

    def batches(self, requests: Sequence[Request], plan: SamplingPlan) -> list[range]:
        return consecutive(requests, plan)

    def answer(self, requests: Sequence[Request], plan: SamplingPlan, number: int) -> list[Sample]:
        if number == self.dies_at:
            raise KeyboardInterrupt
        texts = [request.messages[-1]["content"] for request in requests]
        self.asked += texts
        self.plans.append(plan)
        return [
            Sample(request.id, 0, self.script(text, plan), tokens=9, finished=self.finished)
            for request, text in zip(requests, texts, strict=True)
        ]


def verdict(*, explicit: bool, malicious: bool, analysis: str = "It is so.") -> str:
    return json.dumps({"analysis": analysis, "explicit_content": explicit, "malicious_intent": malicious})


def by_words(text: str, plan: SamplingPlan) -> str:
    """Explicit where vorn powder is named, malicious where somebody is to be hurt."""
    prompt = text.split("==========")[1]
    return verdict(explicit="vorn powder" in prompt, malicious="hurt" in prompt)


def prompts_of(**texts: str) -> list[Prompt]:
    return [Prompt.user(id, text) for id, text in texts.items()]


def grouped(group: Group, count: int, *, sure: float | None = None, word: str = "window") -> list[GroupedPrompt]:
    """`count` different prompts of a group."""
    return [
        GroupedPrompt(f"{group}-{n}", Prompt.user("", f"{group} prompt about {word} {n}").messages, group, sure)
        for n in range(count)
    ]


def tiny_encoder(folder: Path, tokenizer: Path) -> str:
    """A folder of a random BERT of two layers."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)
