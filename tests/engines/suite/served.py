"""An engine behind a real port, as the contract suite sees it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

OFF: Final[Mapping[str, str]] = {"X-Control-Mode": "off"}
"""Most tests are about engines and not about dials."""
Body = dict[str, Any]

TAKE_TOOLS: Final = [pytest.param(name, marks=pytest.mark.vllm) for name in ("vllm", "remote")]
"""The engines that pass on tools and structured output."""
TAKE_NO_TOOLS: Final = ["fake", "embedded"]
ENGINES: Final = [*TAKE_NO_TOOLS, *TAKE_TOOLS]


@dataclass(frozen=True, slots=True)
class Served:
    """`running` counts the engine's requests, `kill` ends the engine without its server knowing.

    `warm` and `cold` are the ids of two adapters.
    """

    engine: str
    url: str
    model: str
    warm: str
    cold: str
    running: Callable[[], int]
    kill: Callable[[], None]

    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, default_headers=OFF)

    def async_openai(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, default_headers=OFF)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, headers=OFF)

    def body(self, text: str = "How do I keep a small garden?", /, **fields: Any) -> Body:
        """A chat request, greedy and short unless told otherwise."""
        messages = [{"role": "user", "content": text}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 12, **fields}

    def long_body(self, **fields: Any) -> Body:
        """A request that runs to the end of the context, if nobody stops it."""
        return self.body(max_tokens=None, ignore_eos=True, temperature=1, seed=1, **fields)

    def by_adapter(self, adapter: str, text: str = "How do I keep a small garden?", /, **fields: Any) -> Body:
        control = {"mode": "adapter", "adapter": adapter, "safety": 0.5, "helpfulness": 0.5}
        return self.body(text, control=control, **fields)

    def answer(self, body: Body) -> Body:
        """The whole answer as JSON."""
        with self.http() as http:
            response = http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        answer: Body = response.json()
        return answer

    def refusal(self, body: Body) -> tuple[int, Body]:
        """Status and OpenAI's error object of a request that is refused."""
        with self.http() as http:
            response = http.post("/v1/chat/completions", json=body)
        assert response.status_code >= 400, response.text
        error: Body = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return response.status_code, error

    def wait_until_busy(self) -> None:
        """Some engines tell of a request a moment after its first token."""
        deadline = time.monotonic() + 15
        while not self.running():
            assert time.monotonic() < deadline, "the request never reached the engine"
            time.sleep(0.01)

    def wait_until_running(self, wanted: int, *, within: float = 15) -> None:
        deadline = time.monotonic() + within
        while (running := self.running()) != wanted:
            assert time.monotonic() < deadline, f"{running} requests are in the engine, not {wanted}"
            time.sleep(0.02)


def text_of(answer: Body) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text
