"""The metrics: their labels are bounded whatever is asked, and what they tell is what happened."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, get_args

import httpx
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Metric, multiprocess
from prometheus_client.samples import Sample

from rheostat_server.adapters import AdapterStore
from rheostat_server.admission import Admission
from rheostat_server.app import create_app
from rheostat_server.audit.health import Cause
from rheostat_server.blending.store import BlendPoint
from rheostat_server.callers.shelf import Shelf
from rheostat_server.contract.dials import DIAL_NAMES, Dials
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed, EngineRejected, RheostatError
from rheostat_server.limits.quota import LimitName
from rheostat_server.modes import KNOWN_MODES
from rheostat_server.plan import ControlPlan
from rheostat_server.policy import BOUNDS
from rheostat_server.reranking.facts import Facts
from rheostat_server.reranking.selection import Choice, left
from rheostat_server.runtime import Runtime, admission_from, defaults_from
from rheostat_server.scorers import Scores
from rheostat_server.settings import Settings
from rheostat_server.telemetry import UNPLANNED, code_of, count_facts
from tests.limits.metrics import value
from tests.reranking.rigs import CARD, Rig, TalkativeScorer
from tests.server.recording import RecordingEngine

ODD: Final = "vorn-" * 300
CHAT: Final[dict[str, Any]] = {"model": "demo", "messages": [{"role": "user", "content": ODD}]}
"""The caller's text is odd too, so that it would be found in a label."""

ODD_REQUESTS: Final[list[dict[str, Any]]] = [
    {"control": {"safety": 0.1, "helpfulness": 1, "mode": "prompt"}, "n": 99, "max_tokens": 10**9},
    {"control": {"mode": "rerank", "candidates": 10**6}, "user": ODD},
    {"control": {"mode": "prompt+rerank", "candidates": 2}, "stream": True},
    {"control": {"mode": "off"}},
    {},
    {"control": {"mode": ODD}},
    {"control": {"mode": "magic\n{}="}},
    {"control": {"mode": "adapter"}},
    {"control": {"preset": ODD}},
    {"control": {"adapter": ODD}},
    {"control": {"safety": 7}},
    {"model": ODD},
    {"model": f"demo:{ODD}"},
    {"model": "demo:strict", "max_completion_tokens": ODD},
    {"messages": ODD},
    *[{}] * 6,
]


def subclasses(of: type[RheostatError]) -> Iterator[type[RheostatError]]:
    for each in of.__subclasses__():
        yield each
        yield from subclasses(each)


def allowed() -> dict[str, set[str]]:
    """By label, every value that it may have; `le` is a bucket's bound, and scorers are named by the operator."""
    return {
        "mode": {*KNOWN_MODES, UNPLANNED},
        "outcome": {"answered", "refused", "failed", "cancelled", "taken", "loaded"},
        "dial": {*DIAL_NAMES, *BOUNDS, "candidates", "n"},
        "direction": {"above", "below"},
        "end": {"finished", "failed", "dropped"},
        "limit": {*get_args(LimitName), "parallel"},
        "cause": {*get_args(Cause), "full", "timeout", "error", "deadline", "queue_full"},
        "code": {"engine_rejected", "internal_error"} | {each.code or each.type for each in subclasses(RheostatError)},
    }


def ours() -> list[Metric]:
    return [metric for metric in REGISTRY.collect() if metric.name.startswith("rheostat_")]


def samples() -> list[Sample]:
    return [sample for metric in ours() for sample in metric.samples]


POLICY: Final = """
envelopes:
  narrow:
    safety: {min: 0.3, default: 0.5}
    candidates: 4
    max_tokens: 20
    rate: {requests_per_minute: 6}
    modes: [auto, "off", prompt, rerank, prompt+rerank]
keys:
  - {name: vorn-app, sha256: "KEY", envelope: narrow}
"""
KEY: Final = "vorn" * 11


@pytest.fixture
def narrow(tmp_path: Path) -> Runtime:
    """A runtime with a scorer, and a caller who may do less than the odd requests ask for."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("KEY", sha256(KEY.encode()).hexdigest()))
    settings = Settings(max_running=2)
    shelf = Shelf.read(path, defaults_from(settings))
    return replace(Rig().runtime(), shelf=shelf, admission=admission_from(settings))


async def ask_oddly(runtime: Runtime, **extra: str) -> set[int]:
    """The statuses of the odd requests, by key and without one."""
    statuses = set()
    async with client(runtime) as http:
        for odd in ODD_REQUESTS:
            for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer {ODD}"}):
                response = await http.post(
                    "/v1/chat/completions", json={**CHAT, **odd, **extra}, headers={**headers, "X-Request-ID": "vorn"}
                )
                statuses.add(response.status_code)
    return statuses


def client(runtime: Runtime) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(runtime), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def test_no_request_adds_a_label_or_a_value_that_is_not_of_a_fixed_set(narrow: Runtime) -> None:
    scorers = {sample.labels["scorer"] for sample in samples() if "scorer" in sample.labels}
    assert await ask_oddly(narrow) >= {200, 401, 403, 404, 422, 429}
    known = {**allowed(), "scorer": {*scorers, CARD.name}}
    found = {(name, told) for sample in samples() for name, told in sample.labels.items() if name != "le"}
    assert {name for name, _ in found} >= {"mode", "outcome", "dial", "code", "limit", "end"}
    assert sorted((name, told) for name, told in found if told not in known.get(name, set())) == []
    assert not any("vorn" in repr(sample) for sample in samples())


async def test_asking_the_same_of_other_users_adds_no_series(narrow: Runtime) -> None:
    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples()}

    await ask_oddly(narrow, user="one")
    before = series()
    await ask_oddly(replace(narrow, admission=Admission()), user="two")
    assert series() == before


async def test_a_request_without_a_plan_is_counted_as_refused_with_the_errors_code(http: httpx.AsyncClient) -> None:
    before = value("rheostat_requests_total", mode=UNPLANNED, outcome="refused")
    codes = value("rheostat_errors_total", code="unknown_mode")
    await http.post("/v1/chat/completions", json={**CHAT, "control": {"mode": "magic"}})
    assert value("rheostat_requests_total", mode=UNPLANNED, outcome="refused") == before + 1
    assert value("rheostat_errors_total", code="unknown_mode") == codes + 1


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        (b"{", "application/json", "bad_request"),
        (b"{}", "text/plain", "unsupported_media_type"),
        (b" " * (Settings().max_body_bytes + 1), "application/json", "body_too_large"),
    ],
)
async def test_a_request_whose_body_cannot_be_taken_is_counted_too(
    http: httpx.AsyncClient, content: bytes, content_type: str, code: str
) -> None:
    before = (
        value("rheostat_requests_total", mode=UNPLANNED, outcome="refused"),
        value("rheostat_errors_total", code=code),
    )
    answer = await http.post("/v1/chat/completions", content=content, headers={"Content-Type": content_type})
    assert answer.json()["error"]["code"] == code
    after = (
        value("rheostat_requests_total", mode=UNPLANNED, outcome="refused"),
        value("rheostat_errors_total", code=code),
    )
    assert after == (before[0] + 1, before[1] + 1)


async def test_a_failed_request_is_counted_by_its_code_and_an_answered_one_is_not(
    http: httpx.AsyncClient, engine: RecordingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(request: EngineRequest) -> Completion:
        raise EngineFailed("broken")

    def errors() -> float:
        return sum(sample.value for sample in samples() if sample.name == "rheostat_errors_total")

    before, failed = errors(), value("rheostat_errors_total", code="engine_failed")
    await http.post("/v1/chat/completions", json=CHAT)
    assert errors() == before
    monkeypatch.setattr(engine, "complete", failing)
    await http.post("/v1/chat/completions", json=CHAT)
    assert (errors(), value("rheostat_errors_total", code="engine_failed")) == (before + 1, failed + 1)


def test_an_engines_own_codes_share_one() -> None:
    assert code_of(EngineRejected("no", status=400, code=ODD, type=ODD)) == "engine_rejected"
    assert code_of(ValueError(ODD)) == "internal_error"


def drift(mode: str, dial: str, direction: str) -> tuple[float, float]:
    """Answers, and the sum of their distances."""
    labels = {"mode": mode, "dial": dial, "direction": direction}
    return value("rheostat_drift_count", **labels), value("rheostat_drift_sum", **labels)


def all_drift(mode: str) -> list[tuple[float, float]]:
    return [drift(mode, dial, direction) for dial in DIAL_NAMES for direction in ("above", "below")]


def reranked(mode: str, dials: Dials, scores: Scores, *, control: Dials | None) -> None:
    plan = ControlPlan(mode, body={}, effective=dials, control_values=control)
    count_facts(plan, Facts(1, generated=1, finished=1, choice=Choice(0, scores, left(scores, dials))))


@pytest.mark.parametrize(("dial", "moved", "other"), [("safety", "above", "below"), ("helpfulness", "below", "above")])
def test_drift_is_how_far_the_level_lay_above_or_below_the_dial(dial: str, moved: str, other: str) -> None:
    dials, mode = Dials(safety=0.5, helpfulness=0.75), "adapter+rerank"
    (count, total), still = drift(mode, dial, moved), drift(mode, dial, other)
    reranked(mode, dials, Scores(safety=0.75, helpfulness=0.5), control=Dials(safety=0.5, helpfulness=1))
    assert drift(mode, dial, moved) == pytest.approx((count + 1, total + 0.25))
    assert drift(mode, dial, other) == still
    labels = {"mode": mode, "dial": dial, "direction": other}
    assert REGISTRY.get_sample_value("rheostat_drift_sum", labels) is not None, "a mean needs both sums"


@pytest.mark.parametrize(
    ("dials", "scores", "control"),
    [
        (Dials(0.5, 0.5), Scores(0.9, 0.9), None),
        (Dials(0.0, 1.0), Scores(0.9, 0.9), Dials(0.0, 1.0)),
        (Dials(0.5, 0.5), Scores(), Dials(0.5, 0.5)),
    ],
    ids=["nothing promised a level", "a dial at its end is a direction", "nothing was judged"],
)
def test_there_is_no_drift_where(dials: Dials, scores: Scores, control: Dials | None) -> None:
    before = all_drift("adapter+rerank")
    reranked("adapter+rerank", dials, scores, control=control)
    assert all_drift("adapter+rerank") == before


def test_a_blend_promises_no_level_from_which_to_drift() -> None:
    point = BlendPoint(Dials(0.5, 0.5), "patches@1", {"safe": 0.5}, ())
    plan = ControlPlan("blend+rerank", {}, effective=Dials(0.5, 0.5), control_values=point.dials, blend=point)
    choice = Choice(0, Scores(0.9, 0.9), {})
    before = all_drift("blend+rerank")
    count_facts(plan, Facts(1, generated=1, finished=1, choice=choice))
    assert all_drift("blend+rerank") == before


async def test_a_reranked_answers_levels_are_told_by_mode_and_dial(runtime: Runtime) -> None:
    scorer = TalkativeScorer(levels=lambda _: Scores(safety=0.7, helpfulness=None))
    adapters: AdapterStore = runtime.means.adapters
    mode, names = "adapter+rerank", ("rheostat_score_count", "rheostat_score_sum")
    safety = [value(name, mode=mode, dial="safety") for name in names]
    helpfulness = value("rheostat_score_count", mode=mode, dial="helpfulness")
    rig = Rig(scorer=scorer, adapters=adapters)
    rig.engine = type(rig.engine)(("demo",), adapters=adapters.ids, words=5)
    async with client(rig.runtime()) as http:
        body = {**CHAT, "control": {"mode": mode, "candidates": 1, "safety": 0.5}}
        (await http.post("/v1/chat/completions", json=body)).raise_for_status()
    assert [value(name, mode=mode, dial="safety") for name in names] == safety
    scorer.levels = lambda _: Scores(safety=0.7, helpfulness=0.4)
    drifted = drift(mode, "safety", "above")[0]
    async with client(rig.runtime()) as http:
        (await http.post("/v1/chat/completions", json=body)).raise_for_status()
    told = [value(name, mode=mode, dial="safety") for name in names]
    assert told == [safety[0] + 1, pytest.approx(safety[1] + 0.7)]
    assert value("rheostat_score_count", mode=mode, dial="helpfulness") == helpfulness + 1
    assert drift(mode, "safety", "above")[0] == drifted + 1


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("rheostat_request_seconds", "0.05", "600.0"), ("rheostat_first_event_seconds", "0.005", "60.0")],
)
async def test_buckets_reach_from_a_fast_answer_to_a_long_one(
    http: httpx.AsyncClient, name: str, first: str, last: str
) -> None:
    await http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    [metric] = [metric for metric in ours() if metric.name == name]
    bounds = [sample.labels["le"] for sample in metric.samples if sample.name.endswith("_bucket")]
    assert bounds[0] == first
    assert bounds[bounds.index("+Inf") - 1] == last


PROCESS: Final = """
from rheostat_server.audit.health import FAILING
from rheostat_server.callers.telemetry import POLICY_KEYS, POLICY_LOADED
from rheostat_server.limits.telemetry import RUNNING, WAITING
from rheostat_server.scorers.telemetry import QUEUED
import sys
given = float(sys.argv[1])
for gauge in (FAILING, POLICY_KEYS, POLICY_LOADED):
    gauge.set(given)
for gauge in (RUNNING, WAITING, QUEUED.labels("judge")):
    gauge.inc(given)
"""


def test_of_several_processes_the_gauges_tell_one_figure_without_a_process_id(tmp_path: Path) -> None:
    for given in ("3", "2"):
        subprocess.run(
            [sys.executable, "-c", PROCESS, given],
            env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
            check=True,
        )
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    gauges = {
        sample.name: (dict(sample.labels), sample.value)
        for metric in registry.collect()
        if metric.type == "gauge"
        for sample in metric.samples
    }
    assert gauges == {
        "rheostat_audit_failing": ({}, 3),
        "rheostat_policy_keys": ({}, 2),
        "rheostat_policy_loaded_timestamp_seconds": ({}, 2),
        "rheostat_queue_running": ({}, 5),
        "rheostat_queue_waiting": ({}, 5),
        "rheostat_scorer_queued": ({"scorer": "judge"}, 5),
    }
