"""vLLM's app in a process that serves it by itself, in a thread that may take no signals, as Ray's replicas do."""

import json
from pathlib import Path

from tests.engines.vllm.server import QUIET, SMALL
from tools.processes import output_of


def test_it_answers_with_our_routes_and_none_of_vllms(tmp_path: Path, tiny_model: Path) -> None:
    settings = {"RHEOSTAT_ENGINE": "vllm", "RHEOSTAT_MODEL": str(tiny_model), "RHEOSTAT_SERVED_MODEL_NAME": "tiny"}
    command = ["python", "-W", "ignore", "-m", "tests.engines.vllm.in_a_thread", *SMALL]
    said = output_of(command, log=tmp_path / "log", within_s=240, environment={**QUIET, **settings})
    [found] = json.loads(said.splitlines()[-1])
    assert (found["chat"], found["bare"]) == (200, 404)
    assert found["control"]["mode"] == "off"
