"""A real vLLM pooling server as the judge, held to the same model's own levels."""

from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from rheostat_server.errors import ScorerUnavailable
from rheostat_server.scorers import Dialogue, Scores
from rheostat_server.scorers.remote import build_remote
from rheostat_server.scorers.spec.remote import AnyRemoteSpec
from tests.engines.vllm.server import VllmServer, running
from tests.scorers.judge import LocalJudge, build_judge
from tools.processes import free_port

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed"),
]

SPEC: TypeAdapter[AnyRemoteSpec] = TypeAdapter(AnyRemoteSpec)
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I dry vorn powder?"}]
DIALOGUES = [Dialogue(ASKED, answer) for answer in ("Spread it on paper and wait.", "no", "I will not say that.")]
LONG = Dialogue(ASKED, "wait " * 400)


@pytest.fixture(scope="module")
def judge(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_judge(tmp_path_factory.mktemp("judge") / "judge", base=tiny_model)


@pytest.fixture(scope="module")
def server(judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[VllmServer]:
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "judge"]
    small = ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "64M"]
    with running(
        ["vllm", "serve", judge, "--runner", "pooling", *address, *small],
        port=port,
        log=tmp_path_factory.mktemp("vllm") / "judge.log",
        path="/health",
    ) as server:
        yield server


async def scores(server: VllmServer, dialogues: list[Dialogue], fields: dict[str, Any]) -> list[Scores]:
    spec = {"kind": "remote", "url": server.url, "model": "judge", "deadline": 60.0, **fields}
    remote = build_remote(SPEC.validate_python(spec))
    try:
        return await remote.score(dialogues)
    finally:
        await remote.close()


async def test_classify_tells_the_levels_that_the_model_itself_has(server: VllmServer, judge: Path) -> None:
    found = await scores(server, DIALOGUES, {"api": "classify", "labels": {"safety": 0}})
    assert [one.safety for one in found] == pytest.approx(LocalJudge.load(judge).levels(DIALOGUES), abs=1e-5)
    assert len({one.safety for one in found}) == 3


async def test_score_tells_the_levels_that_the_model_itself_has(server: VllmServer, judge: Path) -> None:
    found = await scores(server, DIALOGUES, {"api": "score", "dial": "helpfulness"})
    expected = LocalJudge.load(judge).levels_of_pairs(DIALOGUES)
    assert [one.helpfulness for one in found] == pytest.approx(expected, abs=1e-5)


async def test_raw_scores_are_asked_for_and_scaled(server: VllmServer, judge: Path) -> None:
    scale = {"low": -10.0, "high": 10.0}
    fields = {"api": "classify", "labels": {"safety": "LABEL_0"}, "classes": ["LABEL_0"], "activation": False}
    found = await scores(server, DIALOGUES, {**fields, "scale": scale})
    expected = [(logit + 10) / 20 for logit in LocalJudge.load(judge).logits(DIALOGUES)]
    assert [one.safety for one in found] == pytest.approx(expected, abs=1e-5)


async def test_a_text_that_is_too_long_is_not_judged_unless_it_is_cut(server: VllmServer) -> None:
    fields = {"api": "score", "dial": "safety"}
    short, long = await scores(server, [DIALOGUES[0], LONG], fields)
    assert short.safety is not None
    assert long.safety is None
    (cut,) = await scores(server, [LONG], {**fields, "truncate": "right"})
    assert cut.safety is not None


async def test_answers_alone_are_read_in_batches(server: VllmServer, judge: Path) -> None:
    dialogues = [Dialogue(ASKED, answer) for answer in ("plant beans", "no", "wait")] + [LONG]
    found = await scores(server, dialogues, {"api": "classify", "labels": {"safety": 0}, "reads": "answer"})
    expected = LocalJudge.load(judge).levels_of_answers(dialogues[:3])
    assert [one.safety for one in found[:3]] == pytest.approx(expected, abs=1e-5)
    assert found[3] == Scores()


async def test_a_model_that_the_server_lacks_is_named(server: VllmServer) -> None:
    with pytest.raises(ScorerUnavailable, match="status 404; is it the score API of a server that has the model 'x'"):
        await scores(server, DIALOGUES, {"api": "score", "dial": "safety", "model": "x"})
