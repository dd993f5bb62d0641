"""How the tests of the embedded engine ask it, and what transformers itself would answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
from peft import PeftModel

from rheostat_server.engines import DONE, Completion, EngineRequest
from rheostat_server.engines.embedded import EmbeddedEngine

SHORT = "plant beans"
LONG = "please tell me how to keep a small garden in the city and what to plant there in spring " * 5


def request(text: str = SHORT, /, **fields: Any) -> EngineRequest:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 12, **fields}
    return EngineRequest(body, request_id="r")


async def text_of(engine: EmbeddedEngine, text: str = SHORT, /, **fields: Any) -> str:
    return (await texts_of(engine, text, **fields))[0]


async def texts_of(engine: EmbeddedEngine, text: str = SHORT, /, **fields: Any) -> list[str]:
    completion = await engine.complete(request(text, **fields))
    return [choice["message"]["content"] for choice in completion["choices"]]


async def chunks_of(engine: EmbeddedEngine, text: str = SHORT, /, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, the last one, DONE, taken off."""
    return events_of(b"".join([part async for part in engine.stream(request(text, stream=True, **fields))]))


def events_of(data: bytes) -> list[dict[str, Any]]:
    """Likewise, of all that was streamed."""
    assert data.endswith(DONE)
    return [orjson.loads(event.removeprefix(b"data: ")) for event in data.removesuffix(DONE).split(b"\n\n") if event]


def streamed_text(chunks: Sequence[dict[str, Any]], candidate: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == candidate]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def tokens_of(completion: Completion) -> list[str]:
    return [entry["token"] for entry in completion["choices"][0]["logprobs"]["content"]]


async def settled(engine: EmbeddedEngine) -> None:
    """Returns when nothing runs or waits in the engine any more."""
    async with asyncio.timeout(20):
        while engine.running + engine.waiting:
            await asyncio.sleep(0.002)


@dataclass(frozen=True, slots=True)
class Reference:
    """transformers' own model with its own attention, cache and generate; an adapter by PEFT's own layers."""

    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: Path, adapter: Path | None = None) -> "Reference":
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        if adapter is not None:
            model = PeftModel.from_pretrained(model, str(adapter))
        return cls(model.eval(), transformers.AutoTokenizer.from_pretrained(folder))

    def prompt(self, text: str) -> list[int]:
        chat = [{"role": "user", "content": text}]
        rendered = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return ids

    def generate(self, text: str, *, tokens: int = 12, **settings: Any) -> list[int]:
        prompt = torch.tensor([self.prompt(text)])
        ids = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=tokens,
            do_sample=False,
            **settings,
        )[0]
        answer: list[int] = ids[prompt.shape[1] :].tolist()
        return answer

    def answer(self, text: str, **settings: Any) -> str:
        words: str = self.tokenizer.decode(self.generate(text, **settings), skip_special_tokens=True)
        return words

    def log_probabilities(self, text: str, answer: Sequence[int]) -> torch.Tensor:
        """(answer, vocabulary): the distribution from which each token of the answer was taken."""
        prompt = self.prompt(text)
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        scores: torch.Tensor = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return scores
