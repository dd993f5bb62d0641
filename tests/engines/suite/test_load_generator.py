"""`vllm bench serve` is a load generator for every engine."""

import json
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engines.suite.served import Served
from tests.engines.vllm.server import BIN

REQUESTS, TOKENS = 4, 8


@pytest.mark.slow
@pytest.mark.vllm
def test_vllm_bench_serve_loads_it(served: Served, tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("no build of vLLM is installed")
    prompts, result = tmp_path / "prompts.jsonl", tmp_path / "result.json"
    prompts.write_text('{"prompt": "How do I keep a small garden?"}\n' * REQUESTS)
    body = {"control": {"safety": 1, "mode": "adapter"}, "max_completion_tokens": TOKENS, "temperature": 0}
    options = {
        "backend": "openai-chat", "endpoint": "/v1/chat/completions", "base-url": served.url, "model": served.model,
        "dataset-name": "custom", "dataset-path": prompts, "num-prompts": REQUESTS, "max-concurrency": 2,
        "extra-body": json.dumps(body),
        "result-dir": tmp_path, "result-filename": result.name,
    }  # fmt: skip
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [str(BIN / "vllm"), "bench", "serve", "--skip-tokenizer-init", "--save-result", "--disable-tqdm", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    figures = json.loads(result.read_text())
    assert (figures["completed"], figures["total_output_tokens"]) == (REQUESTS, REQUESTS * TOKENS)
