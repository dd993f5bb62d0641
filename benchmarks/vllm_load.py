"""Load on a server: `vllm bench serve`, or requests of our own where each must differ."""

import asyncio
import json
import random
import re
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tools.processes import BIN

WORDS: Final = (
    "garden kitchen winter letter school river market music doctor travel money paper window morning dinner "
    "engine friend parent answer battery ladder medicine password neighbour recipe ticket weather holiday"
)

COMPLETION_TOKENS: Final = re.compile(rb'"completion_tokens": ?(\d+)')

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests at once, how many in all, and how long each answer is."""

    concurrency: int
    requests: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run's figures: milliseconds are medians over its requests, tokens are sums, where they were told."""

    tokens_per_s: float
    first_token_ms: float
    token_ms: float
    prompt_tokens: int = 0
    completed: int = 0
    output_tokens: int = 0


def prompts(count: int, *, seed: int, words: int = 60) -> list[str]:
    """Texts of equal length that share no prefix, so that no round finds another's in the prefix cache."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS.split(), k=words)) for _ in range(count)]


def bench_serve(url: str, model: str, conversations: Sequence[object], body: Body, load: Load, folder: Path) -> Run:
    """One run of `vllm bench serve`. Without a tokenizer it sends messages as they are and counts by `usage`."""
    data, result = folder / "prompts.jsonl", folder / "result.json"
    data.write_text("".join(json.dumps({"prompt": messages}) + "\n" for messages in conversations))
    fixed = {"max_completion_tokens": load.output_tokens, "ignore_eos": True, "temperature": 0}
    options = {
        "backend": "openai-chat", "endpoint": "/v1/chat/completions", "base-url": url, "model": model,
        "dataset-name": "custom", "dataset-path": data, "num-prompts": load.requests,
        "max-concurrency": load.concurrency, "extra-body": json.dumps({**body, **fixed}),
        "result-dir": folder, "result-filename": result.name,
    }  # fmt: skip
    command = [str(BIN / "vllm"), "bench", "serve", "--skip-tokenizer-init", "--disable-shuffle", "--disable-tqdm"]
    command += [
        "--save-result",
        "--save-detailed",
        *(part for name, value in options.items() for part in (f"--{name}", str(value))),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"vllm bench serve failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return _read(json.loads(result.read_text()), load)


def _read(figures: Mapping[str, Any], load: Load) -> Run:
    """Refuses a run in which not every request did the work that was asked."""
    if figures["output_lens"] != [load.output_tokens] * load.requests:
        raise SystemExit(f"not every answer has {load.output_tokens} tokens: {figures['output_lens']}")
    rest = [1000 * sum(gaps) / (load.output_tokens - 1) for gaps in figures["itls"]]
    return Run(
        tokens_per_s=figures["output_throughput"],
        first_token_ms=1000 * statistics.median(figures["ttfts"]),
        token_ms=statistics.median(rest),
        prompt_tokens=figures["total_input_tokens"],
        completed=figures["completed"],
        output_tokens=figures["total_output_tokens"],
    )


async def send(url: str, bodies: Sequence[Body], load: Load) -> Run:
    """Every body once, streamed with its usage, `load.concurrency` at a time."""
    started = time.perf_counter()
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=load.concurrency)) as session:
        room = asyncio.Semaphore(load.concurrency)
        times = await asyncio.gather(*(_timed(session, room, body) for body in bodies))
    seconds = time.perf_counter() - started
    return Run(
        tokens_per_s=len(bodies) * load.output_tokens / seconds,
        first_token_ms=1000 * statistics.median(first for first, _ in times),
        token_ms=1000 * statistics.median(rest for _, rest in times) / (load.output_tokens - 1),
    )


async def _timed(session: aiohttp.ClientSession, room: asyncio.Semaphore, body: Body) -> tuple[float, float]:
    """Seconds to the first bytes, and from there to the last. Refuses an answer that is not as long as was asked."""
    async with room:
        asked = time.perf_counter()
        async with session.post("/v1/chat/completions", json=body, raise_for_status=True) as answer:
            told = await answer.content.readany()
            first = time.perf_counter()
            told += await answer.read()
        last = time.perf_counter()
    if COMPLETION_TOKENS.findall(told) != [str(body["max_completion_tokens"]).encode()]:
        raise RuntimeError(f"an answer has not {body['max_completion_tokens']} tokens; it ends: {told[-500:]!r}")
    return first - asked, last - first
