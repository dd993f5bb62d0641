"""Samplers but the local one: a server over HTTP, and vLLM in a process of its own."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from rheostat_server import demo
from rheostat_server.adapters import AdapterStore
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.fake import FakeEngine
from rheostat_training.config import RunConfig, as_values, read_config, with_values, write_config
from rheostat_training.generate import SamplingPlan, generate
from rheostat_training.materials import Materials
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample, Scored, read_rows
from rheostat_training.run import run
from rheostat_training.samplers import server
from rheostat_training.samplers.local import sample
from rheostat_training.samplers.server import ServerRefused, ServerSampler
from tests.engines.app_server import app_server
from tests.engines.vllm.server import SMALL, run_with_vllm, running
from tools.processes import free_port

MINIATURE = Path(__file__).parent / "miniature.yaml"
QUIET = Progress.silent()
ASKED = [Request(f"p{n}", ({"role": "user", "content": f"question {n}"},)) for n in range(5)]
DIALLED = [Request(each.id, each.messages, Dials(safety=0.25, helpfulness=1.0)) for each in ASKED]
PLAN = SamplingPlan(samples=2, max_new_tokens=6, batch_rows=4, settling_tokens=2, seed=3)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def url(engine: FakeEngine) -> Iterator[str]:
    with app_server(engine, AdapterStore()) as url:
        yield url


def test_a_server_answers_every_request_n_times_in_shards(tmp_path: Path, url: str, engine: FakeEngine) -> None:
    sampler = ServerSampler(url, "fake", "off", logprobs=True)
    rows = list(read_rows(generate(sampler, ASKED, PLAN, tmp_path, progress=QUIET), Sample))
    assert [(row.prompt_id, row.sample) for row in rows] == [(f"p{n}", i) for n in range(5) for i in range(2)]
    assert len(list((tmp_path / "shards").glob("*.jsonl"))) == 3
    assert all(row.tokens == 6 and row.least is not None and 0 < row.least <= 1 for row in rows)
    seeds = [request.body["seed"] for request in engine.asked]
    assert len(set(seeds)) == len(ASKED)
    again = ServerSampler(url, "fake", "off", logprobs=True).answer(ASKED[:2], PLAN, 0)
    assert again == rows[:4]


def test_a_rheostat_server_is_asked_for_dials_and_any_other_gets_control_text(url: str, engine: FakeEngine) -> None:
    plan = SamplingPlan(samples=1, max_new_tokens=4)
    [dialled] = ServerSampler(url, "fake", "prompt").sample(DIALLED[:1], plan, progress=QUIET)
    assert dialled.dials == DIALLED[0].dials
    assert "full and complete" in engine.asked[-1].body["messages"][0]["content"]
    body = json.dumps(ServerSampler(url, "fake")._body(DIALLED[0], plan, 0)["messages"])
    assert "[helpful=1.00][harmless=0.25]" in body


def test_a_rheostat_server_that_adds_dials_of_its_own_gives_no_answer_to_learn_from(url: str) -> None:
    with pytest.raises(ServerRefused, match="is a Rheostat server, and answered in mode 'prompt'"):
        ServerSampler(url, "fake").sample(ASKED[:1], SamplingPlan(samples=1, max_new_tokens=4), progress=QUIET)


def test_a_server_that_reranks_is_told_among_how_many(tmp_path: Path) -> None:
    engine = FakeEngine(("demo",))
    with app_server(engine, AdapterStore(), demo.scorers_file()) as url:
        sampler = ServerSampler(url, "demo", "rerank", candidates=3)
        rows = sampler.sample(DIALLED[:1], replace(PLAN, samples=1), progress=QUIET)
    assert len(rows) == 1
    assert len(engine.asked) == 3
    assert sampler.identity().endswith("mode rerank, 3 candidates")


def test_answers_in_memory_keep_the_order_of_the_requests(url: str) -> None:
    rows = ServerSampler(url, "fake", "off").sample(ASKED, SamplingPlan(samples=1, max_new_tokens=4), progress=QUIET)
    assert [row.prompt_id for row in rows] == [each.id for each in ASKED]
    assert {row.least for row in rows} == {None}


def test_one_refusal_fails_the_whole_and_says_what_the_server_said(url: str) -> None:
    with pytest.raises(ServerRefused, match=r"answered 404: .*nobody"):
        ServerSampler(url, "nobody", "off").sample(ASKED, PLAN, progress=QUIET)


def test_the_address_may_end_in_v1_as_other_clients_want_it(url: str) -> None:
    plan = SamplingPlan(samples=1, max_new_tokens=4)
    one, other = (ServerSampler(f"{url}{end}", "fake", "off").answer(ASKED[:1], plan, 0) for end in ("", "/v1/"))
    assert one == other


@pytest.mark.parametrize("body", ["<html>hello</html>", "[]", '{"choices": [{}]}'])
def test_an_answer_that_is_no_completion_is_told(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    async def post(*_: object, **__: object) -> httpx.Response:
        return httpx.Response(200, text=body)

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    with pytest.raises(ServerRefused, match="what is no chat completion"):
        ServerSampler("http://127.0.0.1:9", "fake").sample(ASKED[:1], PLAN, progress=QUIET)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Response | Exception]:
    """What a server says, one after the other."""
    said: list[httpx.Response | Exception] = []

    async def post(*_: object, **__: object) -> httpx.Response:
        found = said.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(httpx.AsyncClient, "post", post)
    return said


def completion(choices: int) -> httpx.Response:
    said = {"message": {"content": "yes"}, "finish_reason": "stop"}
    body = {"choices": [{"index": n, **said} for n in range(choices)], "usage": {"completion_tokens": 3}}
    return httpx.Response(200, json=body)


def ask(samples: int = 1) -> list[Sample]:
    plan = SamplingPlan(samples=samples, max_new_tokens=4)
    return ServerSampler("http://127.0.0.1:9", "fake").sample(ASKED[:1], plan, progress=QUIET)


@pytest.mark.parametrize("given", [0, 1])
def test_a_server_that_gives_fewer_answers_than_asked_is_refused(
    answers: list[httpx.Response | Exception], given: int
) -> None:
    answers.append(completion(given))
    with pytest.raises(ServerRefused, match=f"gave {given} of 8 choices"):
        ask(samples=8)


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    "passing",
    [httpx.Response(status, headers={"Retry-After": "0"}) for status in (429, 500, 503)]
    + [httpx.Response(429, headers={"Retry-After": DATE}), httpx.ReadTimeout(""), httpx.ReadError("reset")],
)
def test_what_a_server_cannot_answer_now_it_is_asked_again(
    answers: list[httpx.Response | Exception], passing: httpx.Response | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BACKOFF", lambda state: 0.0)
    answers += [passing, passing, completion(1)]
    assert [row.answer for row in ask()] == ["yes"]


def test_a_server_is_asked_so_often_and_no_more(
    answers: list[httpx.Response | Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "BACKOFF", lambda state: 0.0)
    answers += [httpx.Response(503, text="busy") for _ in range(server.TRIES + 1)]
    with pytest.raises(ServerRefused, match="answered 503: busy"):
        ask()
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (DATE, 0.0), ("99999", 600.0), ("soon", None), ("-1", None), (None, None)]
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert server._seconds(header) == seconds


def test_an_address_that_is_none_is_told_and_a_password_in_one_is_not() -> None:
    with pytest.raises(ServerRefused, match="80o0 is no address"):
        ServerSampler("http://127.0.0.1:80o0", "fake")
    sampler = ServerSampler("http://name:SECRET@127.0.0.1:9", "fake")
    with pytest.raises(ServerRefused, match=r"^http://127\.0\.0\.1:9 did not answer"):
        sampler.sample(ASKED[:1], PLAN, progress=QUIET)
    assert "SECRET" not in sampler.identity()
    assert ServerSampler("http://127.0.0.1:9/v1/", "fake").identity() == "fake at http://127.0.0.1:9/v1/, mode None"


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ServerRefused, match=r"http://127\.0\.0\.1:9 did not answer"):
        ServerSampler("http://127.0.0.1:9", "fake").sample(ASKED, PLAN, progress=QUIET)


REAL_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed")
GREEDY = SamplingPlan(samples=1, temperature=0.0, max_new_tokens=40, batch_rows=4)


def run_config(engine: str, plan: SamplingPlan, **more: object) -> RunConfig:
    """The miniature run with another engine's answers, to six prompts."""
    generate = {"engine": engine, "worded": 0, "sampling": asdict(plan), **more}
    return with_values(read_config(MINIATURE), {"prompts": {"source": {"count": 6}}, "generate": generate})


def are_the_local_samplers(found: Sequence[Sample], config: RunConfig) -> None:
    asked = [Request(prompt.id, prompt.messages) for prompt in Materials(config, print).training_prompts.values()]
    wanted = sample(load_base(demo.base_folder()), asked, GREEDY)
    for there, here in zip(found, wanted, strict=True):
        assert (there.prompt_id, there.answer, there.finished) == (here.prompt_id, here.answer, here.finished)
        assert there.tokens == here.tokens
        assert there.least == pytest.approx(here.least, rel=1e-2)


@pytest.mark.slow
@pytest.mark.vllm
@REAL_VLLM
def test_a_run_that_generates_by_vllm_offline_has_the_local_samplers_answers(tmp_path: Path) -> None:
    config = run_config("vllm", GREEDY, vllm={"dtype": "float32", "enforce_eager": True})
    file = write_config(as_values(config), tmp_path / "run.yaml")
    asked: list[str | Path] = ["-m", "rheostat", "train", "generate", file, "--out", tmp_path / "run"]
    run_with_vllm(asked, log=tmp_path / "log")
    are_the_local_samplers(list(read_rows(tmp_path / "run/generate/samples.jsonl", Sample)), config)


@pytest.mark.slow
@pytest.mark.vllm
@REAL_VLLM
def test_a_run_that_generates_by_a_vllm_server_has_the_local_samplers_answers(tmp_path: Path) -> None:
    port = free_port()
    address = ["--served-model-name", "base", "--port", str(port)]
    command: list[str | Path] = ["vllm", "serve", demo.base_folder(), *address, *SMALL]
    with running(command, port=port, log=tmp_path / "log", path="/health") as server:
        more = {"url": server.url, "served_model": "base", "logprobs": True}
        config = run_config("server", GREEDY, **more)
        run(config, tmp_path / "greedy", until="generate", progress=QUIET, say=lambda line: None)
        several = run_config("server", replace(GREEDY, samples=3, temperature=0.8, max_new_tokens=160), **more)
        run(several, tmp_path / "several", until="score", progress=QUIET, say=lambda line: None)
    are_the_local_samplers(list(read_rows(tmp_path / "greedy/generate/samples.jsonl", Sample)), config)
    drawn = list(read_rows(tmp_path / "several/generate/samples.jsonl", Sample))
    assert Counter(row.prompt_id for row in drawn) == dict.fromkeys(Materials(several, print).training_prompts, 3)
    assert all(row.least is not None and 0 < row.least <= 1 for row in drawn)
    scored = list(read_rows(tmp_path / "several/score/scored.jsonl", Scored))
    assert len(scored) > 12
    assert all(row.safety is not None for row in scored)
