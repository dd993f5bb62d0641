"""What a trace shows of a request, whatever becomes of it; and that it shows nothing that people wrote."""

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from rheostat_server import packages
from rheostat_server.app import create_app
from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.engines.remote import RemoteEngine, Upstream
from rheostat_server.errors import CannotStart, EngineFailed, RheostatError
from rheostat_server.limits.fair_queue import FairQueue
from rheostat_server.modes.reranking import Check, Schedule
from rheostat_server.runtime import Runtime
from rheostat_server.serve import start
from rheostat_server.settings import Settings
from rheostat_server.tracing import NO_SPAN, NO_TRACING
from rheostat_server.tracing.spans import OtelTracing
from rheostat_server.tracing.start import start_tracing
from tests.engines.remote.scripted import Asked, events, scripted
from tests.engines.remote.scripted import json as as_json
from tests.reranking.rigs import Rig, slow
from tests.server.callers.files import KIDS_KEY, LAB_KEY, bearer, write
from tests.server.test_disconnect import Step, body, call, silent

WRITTEN = "vorn-powder"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
CHAT: dict[str, Any] = {
    "model": "demo",
    "messages": [{"role": "user", "content": f"How is {WRITTEN} made?"}],
    "max_tokens": 12,
    "control": {"mode": "prompt", "safety": 0.9, "helpfulness": 0.4},
}
RERANKED = {**CHAT["control"], "mode": "prompt+rerank", "candidates": 4}
HALVING = Schedule((Check(4, 0.5), Check(8, 0.5)))
PATH = "/v1/chat/completions"


@dataclass
class Traces:
    """What was exported, in the order in which it ended."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    sampler: sampling.Sampler = sampling.DEFAULT_ON

    def tracing(self) -> OtelTracing:
        provider = TracerProvider(self.sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        return OtelTracing(provider)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def one(self, name: str) -> ReadableSpan:
        [found] = [span for span in self.spans() if span.name == name]
        return found

    def server(self) -> ReadableSpan:
        [found] = [span for span in self.spans() if span.kind is SpanKind.SERVER]
        return found

    def tree(self) -> Any:
        """Names by the names that they lie in, in the order in which they began."""
        return self._below(self.server())

    def _below(self, span: ReadableSpan) -> Any:
        assert span.context is not None
        inner = [each for each in self.spans() if each.parent and each.parent.span_id == span.context.span_id]
        inner.sort(key=lambda each: each.start_time or 0)
        return (span.name, *(self._below(each) for each in inner))


@asynccontextmanager
async def served(runtime: Runtime, traces: Traces) -> AsyncGenerator[httpx.AsyncClient, None]:
    transport = httpx.ASGITransport(create_app(replace(runtime, tracing=traces.tracing())), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parts(server: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("rheostat."): value for name, value in attributes(server).items()}


def ours(engine: Any = None) -> Runtime:
    return replace(Rig().runtime(), engine=engine or FakeEngine(("demo",)))


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_a_plan_an_admission_and_an_engines_answer(stream: bool) -> None:
    traces = Traces()
    async with served(ours(), traces) as http:
        response = await http.post(PATH, json={**CHAT, "stream": stream}, headers={"X-Request-ID": "r-1"})
    assert response.status_code == 200
    assert traces.tree() == (f"POST {PATH}", ("plan",), ("admission",), ("engine",))
    told = attributes(traces.server())
    assert (told["http.request.method"], told["http.route"]) == ("POST", PATH)
    assert told["http.response.status_code"] == 200
    expected = {
        "request_id": "r-1", "mode": "prompt", "safety": 0.9, "helpfulness": 0.4, "outcome": "answered",
        "stream": stream, "model": "demo",
    }  # fmt: skip
    assert parts(traces.server()).items() >= expected.items()
    assert traces.server().status.status_code is StatusCode.UNSET
    assert traces.server().parent is None
    assert attributes(traces.one("engine")) == {"rheostat.engine": "fake"}
    assert [event.name for event in traces.one("engine").events] == (["first_event"] if stream else [])
    if not stream:
        assert parts(traces.server())["usage.completion_tokens"] == response.json()["usage"]["completion_tokens"]


async def test_a_span_lasts_until_the_last_byte_of_a_stream() -> None:
    traces = Traces()
    async with served(ours(slow(0.02)), traces) as http:
        await http.post(PATH, json={**CHAT, "stream": True})
    server, engine = traces.server(), traces.one("engine")
    assert server.end_time is not None
    assert engine.end_time is not None
    [first] = engine.events
    assert first.timestamp < engine.end_time - 100_000_000
    assert engine.end_time <= server.end_time


@pytest.mark.parametrize("stream", [False, True])
async def test_a_race_is_a_choice_between_its_judgements(stream: bool) -> None:
    traces = Traces()
    async with served(Rig(schedule=Schedule((Check(2, 1),))).runtime(), traces) as http:
        response = await http.post(PATH, json={**CHAT, "control": RERANKED, "stream": stream, "max_tokens": 16})
    assert response.status_code == 200
    name, plan, admission, rerank = traces.tree()
    assert (name, plan, admission, rerank[0]) == (f"POST {PATH}", ("plan",), ("admission",), "rerank")
    [race] = rerank[1:]
    assert race[0] == "race"
    assert [each[0] for each in race[1:]].count("choose") == 1
    assert {each[0] for each in race[1:]} == {"choose", "judge"}
    counts = {key.rpartition(".")[2]: value for key, value in attributes(traces.one("race")).items()}
    assert counts["generated"] == counts["finished"] + counts["dropped"] == 4
    assert counts["finished"] == parts(traces.server())["candidates.finished"]
    assert (counts["dropped"] > 0, counts["failed"]) == (True, 0)
    judge = next(span for span in traces.spans() if span.name == "judge")
    assert attributes(judge)["rheostat.scorers"] == ("talkative",)
    assert attributes(judge)["rheostat.answers"] >= 1
    assert attributes(traces.one("choose"))["rheostat.choice.after_tokens"] == 2
    assert parts(traces.server())["candidates.generated"] == 4


async def test_whole_candidates_are_one_call_of_the_engine_and_a_choice() -> None:
    traces = Traces()
    async with served(Rig().runtime(), traces) as http:
        answer = (await http.post(PATH, json={**CHAT, "control": RERANKED})).json()
    assert traces.tree()[3] == ("rerank", ("engine",), ("choose", ("judge",)))
    left = {
        dial: attributes(traces.one("choose"))[f"rheostat.choice.left.{dial}"] for dial in ("safety", "helpfulness")
    }
    assert left == answer["control"]["choice"]["left"]


async def test_a_judgement_on_its_own_is_a_span() -> None:
    traces = Traces()
    async with served(Rig().runtime(), traces) as http:
        asked = {"messages": CHAT["messages"], "response": WRITTEN}
        assert (await http.post("/v1/control/score", json=asked)).status_code == 200
    assert traces.tree() == ("POST /v1/control/score", ("judge",))


@pytest.mark.parametrize(
    ("key", "control", "status", "told"),
    [
        ("nobody", {}, 401, {"code": "invalid_api_key"}),
        (LAB_KEY, {"safety": 0.0}, 403, {"code": "outside_envelope", "caller": "lab-app", "envelope": "lab"}),
        (LAB_KEY, {"safety": "high"}, 422, {"code": "invalid_value"}),
    ],
)
async def test_a_refusal_is_a_span_and_no_error(
    tmp_path: Path, key: str, control: dict[str, Any], status: int, told: dict[str, str]
) -> None:
    traces = Traces()
    runtime = replace(ours(), shelf=Shelf.read(write(tmp_path), Defaults()))
    async with served(runtime, traces) as http:
        response = await http.post(PATH, json={**CHAT, "control": control}, headers=bearer(key))
    assert response.status_code == status
    assert "engine" not in repr(traces.tree())
    assert attributes(traces.server())["http.response.status_code"] == status
    assert parts(traces.server()).items() >= {**told, "outcome": "refused"}.items()
    assert all(span.status.status_code is StatusCode.UNSET for span in traces.spans())
    assert key not in everything(traces)


async def test_a_caller_and_what_was_clamped_are_told(tmp_path: Path) -> None:
    traces = Traces()
    runtime = replace(ours(), shelf=Shelf.read(write(tmp_path), Defaults()))
    asked = {**CHAT, "control": {"safety": 0.1, "mode": "rerank"}}
    async with served(replace(Rig().runtime(), shelf=runtime.shelf), traces) as http:
        response = await http.post(PATH, json=asked, headers=bearer(KIDS_KEY))
    assert response.status_code == 200, response.text
    told = parts(traces.server())
    assert (told["caller"], told["envelope"], told["safety"]) == ("kids-app", "children", 0.8)
    assert "safety" in told["clamped"]
    assert KIDS_KEY not in everything(traces)


@dataclass
class Failing(FakeEngine):
    """Its whole answers fail like this; the fake's own orders fail its streams."""

    error: Exception = field(default_factory=lambda: EngineFailed(f"said {WRITTEN}"))

    async def complete(self, request: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(EngineFailed(f"said {WRITTEN}"), 502, "engine_failed"), (KeyError(WRITTEN), 500, "KeyError")],
)
async def test_a_failure_is_an_error_without_its_message(error: Exception, status: int, code: str) -> None:
    traces = Traces()
    async with served(ours(Failing(("demo",), error=error)), traces) as http:
        assert (await http.post(PATH, json=CHAT)).status_code == status
    assert traces.tree() == (f"POST {PATH}", ("plan",), ("admission",), ("engine",))
    for span in (traces.one("engine"), traces.server()):
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == code
    assert attributes(traces.server())["http.response.status_code"] == status
    assert parts(traces.server())["outcome"] == "failed"
    assert WRITTEN not in everything(traces)


async def test_a_stream_that_fails_midway_is_an_error_although_it_began_well() -> None:
    traces = Traces()
    engine = FakeEngine(("demo",), orders=Orders(fail_after=2))
    async with served(ours(engine), traces) as http:
        assert "engine_failed" in (await http.post(PATH, json={**CHAT, "stream": True})).text
    assert attributes(traces.server())["http.response.status_code"] == 200
    assert parts(traces.server())["outcome"] == "failed"
    for span in (traces.one("engine"), traces.server()):
        assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "engine_failed")


@pytest.mark.parametrize("control", [CHAT["control"], RERANKED], ids=["plain", "reranked"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_caller_goes_away_ends_its_spans(control: dict[str, Any], stream: bool) -> None:
    traces = Traces()
    runtime = replace(Rig(schedule=HALVING, engine=slow(0.05, words=400)).runtime(), tracing=traces.tracing())

    async def leaves_later() -> Any:
        await asyncio.sleep(0.3)
        return {"type": "http.disconnect"}

    asked = orjson.dumps({**CHAT, "control": control, "stream": stream, "max_tokens": 400})
    steps: Iterator[Step] = iter([body(asked, more=False), leaves_later, leaves_later, silent])
    await call(create_app(runtime), PATH, steps)
    assert parts(traces.server())["outcome"] == "cancelled"
    assert traces.server().status.status_code is StatusCode.UNSET
    inner = traces.one("rerank" if control is RERANKED else "engine")
    assert attributes(inner)["error.type"] == "cancelled"
    assert {span.name for span in traces.spans()} >= ({"race", "choose"} if control is RERANKED else set())


async def test_waiting_for_a_turn_is_the_admissions_time() -> None:
    traces = Traces()
    admission = replace(Rig().runtime().admission, queue=FairQueue(running=1, waiting=4, deadline=10))
    async with served(replace(ours(slow(0.01)), admission=admission), traces) as http:
        await asyncio.gather(*(http.post(PATH, json=CHAT) for _ in range(2)))
    waits = [(span.end_time or 0) - (span.start_time or 0) for span in traces.spans() if span.name == "admission"]
    assert min(waits) < 50_000_000 < max(waits)


async def test_a_callers_trace_goes_on() -> None:
    traces = Traces()
    async with served(ours(), traces) as http:
        await http.post(PATH, json=CHAT, headers={"traceparent": TRACEPARENT, "tracestate": "a=1"})
    server = traces.server()
    assert server.parent is not None
    assert (f"{server.parent.trace_id:032x}", f"{server.parent.span_id:016x}") == (TRACE, PARENT)
    assert {f"{span.context.trace_id:032x}" for span in traces.spans() if span.context} == {TRACE}


@pytest.mark.parametrize(
    "sent",
    [
        ["nonsense"],
        ["00-0-0-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [TRACEPARENT] * 2,
        ["é"],
    ],
)
async def test_a_parent_that_is_none_is_ignored(sent: list[str]) -> None:
    traces = Traces()
    async with served(ours(), traces) as http:
        headers = [(b"traceparent", value.encode()) for value in sent]
        assert (await http.post(PATH, json=CHAT, headers=headers)).status_code == 200
    assert traces.server().parent is None


@pytest.mark.parametrize("sampler", [sampling.DEFAULT_ON, sampling.ALWAYS_OFF])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_goes_on_with_our_trace_alone(sampler: sampling.Sampler, stream: bool) -> None:
    choice = {"index": 0, "message": {"content": "Yes."}, "delta": {"content": "Yes."}, "finish_reason": "stop"}
    chunk = b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n"
    whole = as_json({"id": "1", "object": "chat.completion", "choices": [choice]})
    traces = Traces(sampler=sampler)
    async with scripted({PATH: events(chunk, b"data: [DONE]\n\n") if stream else whole}) as upstream:
        engine = RemoteEngine(Upstream(upstream.url), ["demo"])
        async with served(ours(engine), traces) as http:
            sent = {"traceparent": TRACEPARENT, "tracestate": "a=1"}
            assert (await http.post(PATH, json={**CHAT, "stream": stream}, headers=sent)).status_code == 200
        await engine.close()
        [asked] = [each for each in upstream.asked if each.path == PATH]
    _check_carried(asked, traces)


def _check_carried(asked: Asked, traces: Traces) -> None:
    version, trace, span, flags = asked.headers["traceparent"].split("-")
    assert (version, trace, asked.headers["tracestate"]) == ("00", TRACE, "a=1")
    if traces.sampler is sampling.ALWAYS_OFF:
        assert (flags, traces.spans()) == ("00", [])
        return
    context = traces.one("engine").context
    assert context is not None
    assert (span, flags) == (f"{context.span_id:016x}", "01")


async def test_every_candidate_carries_the_race() -> None:
    traces = Traces()
    rig = Rig(schedule=HALVING)
    async with served(rig.runtime(), traces) as http:
        await http.post(PATH, json={**CHAT, "control": RERANKED}, headers={"traceparent": TRACEPARENT})
    context = traces.one("race").context
    assert context is not None
    assert {asked.headers["traceparent"] for asked in rig.engine.asked} == {f"00-{TRACE}-{context.span_id:016x}-01"}


async def test_without_tracing_a_callers_trace_is_passed_on_as_it_is() -> None:
    engine = FakeEngine(("demo",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(ours(engine))), base_url="http://t") as http:
        await http.post(PATH, json=CHAT, headers={"traceparent": TRACEPARENT})
    assert engine.asked[0].headers["traceparent"] == TRACEPARENT


def everything(traces: Traces) -> str:
    return json.dumps([json.loads(span.to_json()) for span in traces.spans()])


@pytest.mark.parametrize("control", [CHAT["control"], RERANKED, {"mode": "off"}])
@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_that_people_or_models_wrote_is_told(control: dict[str, Any], stream: bool) -> None:
    traces = Traces()
    async with served(Rig(schedule=HALVING).runtime(), traces) as http:
        answer = await http.post(
            f"{PATH}?q={WRITTEN}",
            json={**CHAT, "control": control, "stream": stream, "stop": WRITTEN},
            headers={"Authorization": f"Bearer {WRITTEN}", "Cookie": WRITTEN, "User-Agent": WRITTEN},
        )
        await http.get(f"/v1/models/{WRITTEN}")
        for wrong in ({"model": WRITTEN}, {WRITTEN: 1}, {"control": {"mode": WRITTEN}}):
            assert (await http.post(PATH, json={**CHAT, **wrong})).status_code >= 400
    assert answer.status_code == 200
    told = everything(traces)
    assert WRITTEN not in told
    words = {word for span in traces.spans() for value in attributes(span).values() for word in str(value).split()}
    assert words.isdisjoint(_words(answer.text))


def _words(answer: str) -> set[str]:
    """What the model wrote, by words of more than two letters."""
    blocks = (
        [answer]
        if answer.startswith("{")
        else [line[6:] for line in answer.split("\n\n") if line.startswith("data: {")]
    )
    choices = [choice for block in blocks for choice in orjson.loads(block).get("choices", ())]
    text = "".join((choice.get("message") or choice.get("delta") or {}).get("content") or "" for choice in choices)
    found = {word for word in text.split() if len(word) > 2}
    assert found
    return found


async def test_only_what_is_under_v1_is_traced() -> None:
    traces = Traces()
    async with served(ours(), traces) as http:
        for path in ("/health", "/ready", "/metrics", "/v1/none", "/v1/models"):
            await http.get(path)
    assert traces.tree() == ("GET /v1/models",)


@pytest.mark.parametrize("error", [EngineFailed("it fails"), KeyError("x")])
async def test_a_line_that_is_logged_tells_its_trace(error: Exception) -> None:
    traces = Traces()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        async with served(ours(Failing(("demo",), error=error)), traces) as http:
            await http.post(PATH, json=CHAT, headers={"traceparent": TRACEPARENT, "X-Request-ID": "r-1"})
    context = traces.server().context
    assert context is not None
    assert [(line["trace_id"], line["span_id"], line["request_id"]) for line in logs] == [
        (TRACE, f"{context.span_id:016x}", "r-1")
    ]


async def test_an_error_of_the_callers_marks_an_inner_span_and_does_not_fail_it() -> None:
    class Refused(RheostatError):
        status = 429
        code = "slow_down"

    traces = Traces()
    span = traces.tracing().request("r", {}, {})
    with pytest.raises(Refused), span.child("admission"):
        raise Refused("")
    assert attributes(traces.one("admission")) == {"error.type": "slow_down"}
    assert traces.one("admission").status.status_code is StatusCode.UNSET


def test_without_tracing_a_span_is_nothing_at_all() -> None:
    assert start_tracing(Settings()) is NO_TRACING
    assert NO_TRACING.request("r", {}, {}) is NO_SPAN
    with NO_SPAN.child("a").child("b") as span:
        span.note({"a": 1})
        span.event("e")
        span.failed("x")
    assert (span, dict(span.ids)) == (NO_SPAN, {})


def test_without_tracing_opentelemetry_is_not_imported() -> None:
    code = (
        "import sys, rheostat_server.serve, rheostat_server.app; from rheostat_server.settings import Settings; "
        "from rheostat_server.tracing.start import start_tracing; start_tracing(Settings()); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_what_is_not_installed_stops_the_start(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def find(name: str) -> Any:
        if name == missing:
            raise ModuleNotFoundError(name)
        return importlib.util.find_spec(name)

    monkeypatch.setattr(packages, "find_spec", find)
    with pytest.raises(CannotStart, match=r"pip install '\.\[otel\]'"):
        start(Settings(tracing=True), engine_flags=[])


def test_an_unknown_protocol_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(CannotStart, match="'http/json'; known ones: http/protobuf, grpc"):
        start_tracing(Settings(tracing=True))


@pytest.mark.parametrize(("named", "name"), [({}, "rheostat"), ({"OTEL_SERVICE_NAME": "ours"}, "ours")])
async def test_the_service_is_named_by_opentelemetrys_variable(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str], name: str
) -> None:
    for variable, value in {**named, "OTEL_TRACES_SAMPLER": "always_off"}.items():
        monkeypatch.setenv(variable, value)
    tracing = start_tracing(Settings(tracing=True))
    assert isinstance(tracing, OtelTracing)
    assert tracing.provider.resource.attributes["service.name"] == name
    assert tracing.provider.sampler is sampling.ALWAYS_OFF
    await tracing.close()
