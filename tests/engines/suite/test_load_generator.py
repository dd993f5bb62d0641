"""`vllm bench serve` is a load generator for every engine."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engines.suite.served import Served


@pytest.mark.slow
@pytest.mark.vllm
def test_vllm_bench_serve_loads_it(served: Served, tmp_path: Path) -> None:
    if find_spec("vllm") is None:
        pytest.skip("no build of vLLM is installed")
    from benchmarks.vllm_load import Load, bench_serve  # needs what vLLM brings

    load = Load(concurrency=2, requests=4, output_tokens=8)
    conversations = [[{"role": "user", "content": "How do I keep a small garden?"}]] * load.requests
    control = {"control": {"safety": 1, "mode": "adapter"}}
    run = bench_serve(served.url, served.model, conversations, control, load, tmp_path)
    assert (run.completed, run.output_tokens) == (load.requests, load.requests * load.output_tokens)
