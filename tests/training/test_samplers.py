"""Samplers but the local one: a server over HTTP, and vLLM in a process of its own."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from rheostat_server import demo
from rheostat_server.adapters import AdapterStore
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.fake import FakeEngine
from rheostat_training.demo.asking import held_out
from rheostat_training.generate import SamplingPlan, generate
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Request, Sample, read_rows
from rheostat_training.samplers import server
from rheostat_training.samplers.local import sample
from rheostat_training.samplers.server import ServerRefused, ServerSampler
from tests.engines.app_server import app_server
from tests.engines.vllm.server import run_with_vllm

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


OFFLINE = """
import json, pathlib, sys
from rheostat_server import demo
from rheostat_training.demo.asking import held_out
from rheostat_training.generate import SamplingPlan, generate
from rheostat_training.progress import Progress
from rheostat_training.rows import Request
from rheostat_training.samplers.offline import VllmSampler
from rheostat_training.sources import base_model_digest
plan = SamplingPlan(**json.loads(sys.argv[1]))
base = demo.base_folder()
sampler = VllmSampler.load(base, base_model_digest(base), dtype="float32", enforce_eager=True)
asked = [Request(prompt.id, prompt.messages) for prompt in held_out(6).values()]
generate(sampler, asked, plan, pathlib.Path(sys.argv[2]), progress=Progress.silent())
"""


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed")
def test_vllm_offline_says_what_the_local_sampler_says(tmp_path: Path) -> None:
    plan = SamplingPlan(samples=1, temperature=0.0, max_new_tokens=40, batch_rows=4)
    run_with_vllm(["-c", OFFLINE, json.dumps(asdict(plan)), tmp_path], log=tmp_path / "log")
    found = {row.prompt_id: row for row in read_rows(tmp_path / "samples.jsonl", Sample)}
    asked = [Request(prompt.id, prompt.messages) for prompt in held_out(6).values()]
    for wanted in sample(load_base(demo.base_folder()), asked, plan):
        reached = found[wanted.prompt_id]
        assert (reached.answer, reached.tokens, reached.finished) == (wanted.answer, wanted.tokens, wanted.finished)
        assert reached.least == pytest.approx(wanted.least, rel=1e-2)
