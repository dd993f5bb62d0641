"""What every request passes and leaves: rates, a turn, a time limit, an id, and one line of the audit log."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.types import ASGIApp, Message

from rheostat_server.admission import Admission
from rheostat_server.api import body
from rheostat_server.app import create_app
from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.engines import DONE, Completion, EngineRequest
from rheostat_server.errors import CannotStart, EngineFailed
from rheostat_server.limits.fair_queue import FairQueue
from rheostat_server.runtime import Runtime, admission_from
from rheostat_server.settings import Settings
from rheostat_server.sse import event
from tests.server.callers.files import LAB_KEY, POLICY, bearer, write
from tests.server.recording import RecordingEngine

CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "a secret question"}]}
RATED = POLICY.replace("{requests_per_minute: 600}", "{requests_per_minute: 3, tokens_per_minute: 100, parallel: 2}")
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "demo"}


@dataclass
class Engine(RecordingEngine):
    """Counts tokens, as it goes where it is asked to, takes its time, and fails when told to."""

    counts_as_it_goes: bool = True

    tokens: int = 30
    seconds: float = 0.0
    fails: Exception | None = None
    breaks_off: bool = False

    async def complete(self, request: EngineRequest) -> Completion:
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise self.fails
        usage = {"prompt_tokens": 10, "completion_tokens": self.tokens - 10, "total_tokens": self.tokens}
        return {**await super().complete(request), "usage": usage}

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        self.asked.append(request)
        options = request.body.get("stream_options") or {}
        usage = {"prompt_tokens": 10, "completion_tokens": self.tokens - 10, "total_tokens": self.tokens}
        each = usage if options.get("continuous_usage_stats") and not self.breaks_off else None
        for text in ("Ye", "s."):
            await asyncio.sleep(self.seconds)
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            yield event({**CHUNK, "choices": [choice], "usage": each})
            if self.fails:
                raise self.fails
        if options.get("include_usage") and not self.breaks_off:
            yield event({**CHUNK, "choices": [], "usage": usage})
        if not self.breaks_off:
            yield DONE


@dataclass
class Served:
    http: httpx.AsyncClient
    audit: Path
    engine: Engine
    app: ASGIApp

    async def ask(self, *, stream: bool = False, key: str = LAB_KEY, **more: Any) -> httpx.Response:
        headers = {**bearer(key), **more.pop("headers", {})}
        return await self.http.post("/v1/chat/completions", json={**CHAT, "stream": stream, **more}, headers=headers)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


@asynccontextmanager
async def served(
    runtime: Runtime, folder: Path, *, engine: Engine | None = None, policy: str = POLICY,
    queue: FairQueue | None = None, **settings: Any,
) -> AsyncGenerator[Served, None]:  # fmt: skip
    given = Settings(audit=folder / "audit.jsonl", **settings)
    admission = admission_from(given)
    admission = admission if queue is None else replace(admission, queue=queue)
    engine = engine or Engine()
    shelf = Shelf.read(write(folder, policy), Defaults())
    app = create_app(replace(runtime, engine=engine, settings=given, shelf=shelf, admission=admission))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        yield Served(http, folder / "audit.jsonl", engine, app)


def receipt_of(stream: httpx.Response) -> dict[str, Any]:
    control: dict[str, Any] = orjson.loads(stream.text.split("\n\n")[-3].removeprefix("data: "))["control"]
    return control


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_leaves_one_record_that_agrees_with_its_receipt(
    runtime: Runtime, tmp_path: Path, stream: bool
) -> None:
    async with served(runtime, tmp_path) as server:
        response = await server.ask(stream=stream, control={"safety": 0.6}, headers={"X-Request-ID": "r-1"})
        receipt = receipt_of(response) if stream else response.json()["control"]
        [record] = server.records()
    assert record["control"] == receipt
    assert (record["caller"], record["envelope"], record["outcome"], record["status"]) == (
        "lab-app", "lab", "answered", 200,
    )  # fmt: skip
    assert (record["request_id"], record["route"], record["model"]) == ("r-1", "/v1/chat/completions", "demo")
    assert record["asked"] == {"safety": 0.6}
    assert record["usage"]["total_tokens"] == 30
    assert record["stream"] is stream
    assert "secret" not in json.dumps(record)
    assert "usage" not in response.text if stream else True
    assert response.headers["x-request-id"] == "r-1"


async def test_a_bug_is_told_with_the_id_of_its_request(runtime: Runtime, tmp_path: Path) -> None:
    async with served(runtime, tmp_path, engine=Engine(fails=KeyError("x"))) as server:
        response = await server.ask(headers={"X-Request-ID": "r-2"})
        assert (response.status_code, response.headers["x-request-id"]) == (500, "r-2")
        assert server.records()[0]["request_id"] == "r-2"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("options", ["include_usage", 1, [{"include_usage": True}], True])
async def test_stream_options_that_are_no_object_are_refused(
    runtime: Runtime, tmp_path: Path, stream: bool, options: object
) -> None:
    async with served(runtime, tmp_path) as server:
        response = await server.ask(stream=stream, stream_options=options)
        assert (response.status_code, response.json()["error"]["param"]) == (422, "stream_options")


async def test_numbers_are_told_to_be_clamped_in_the_mode_off_too(runtime: Runtime, tmp_path: Path) -> None:
    policy = POLICY.replace("outside: reject", "modes: ['off'], max_tokens: 9")
    async with served(runtime, tmp_path, policy=policy) as server:
        response = await server.ask(max_tokens=10, control={"safety": 0})
        assert response.json()["control"]["clamped"] == ["max_tokens"]


async def test_a_stream_tells_its_usage_to_those_who_asked(runtime: Runtime, tmp_path: Path) -> None:
    async with served(runtime, tmp_path) as server:
        told = await server.ask(stream=True, stream_options={"include_usage": True})
        assert '"total_tokens":30' in told.text
        assert server.records()[0]["usage"]["total_tokens"] == 30


@pytest.mark.parametrize(
    ("asked", "outcome", "status", "code"),
    [
        ({"key": "nobody"}, "refused", 401, "invalid_api_key"),
        ({"control": {"safety": 0.0}}, "refused", 403, "outside_envelope"),
        ({"control": {"safety": "high"}}, "refused", 422, "invalid_value"),
        ({"model": "lost"}, "refused", 404, "model_not_found"),
        ({"messages": []}, "refused", 422, "invalid_value"),
    ],
)
async def test_a_refusal_leaves_a_record_too(
    runtime: Runtime, tmp_path: Path, asked: dict[str, Any], outcome: str, status: int, code: str
) -> None:
    async with served(runtime, tmp_path) as server:
        response = await server.ask(**asked)
        assert response.status_code == status
        assert response.headers["x-request-id"]
        [record] = server.records()
    assert (record["outcome"], record["status"], record["code"]) == (outcome, status, code)
    assert record["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "code"), [(EngineFailed("it fails"), "engine_failed"), (KeyError("x"), "internal_error")]
)
async def test_a_failure_leaves_a_record_too(
    runtime: Runtime, tmp_path: Path, stream: bool, error: Exception, code: str
) -> None:
    async with served(runtime, tmp_path, engine=Engine(fails=error)) as server:
        await server.ask(stream=stream)
        [record] = server.records()
    assert (record["outcome"], record["code"]) == ("failed", code)
    assert record["control"]["mode"] == "adapter"


async def test_a_stream_that_breaks_off_ends_with_an_error_and_its_tokens_count(
    runtime: Runtime, tmp_path: Path
) -> None:
    async with served(runtime, tmp_path, engine=Engine(breaks_off=True)) as server:
        response = await server.ask(stream=True)
        [record] = server.records()
    assert "engine_failed" in response.text
    assert (record["outcome"], record["code"]) == ("failed", "engine_failed")
    assert record["usage"]["completion_tokens"] == 2
    assert record["usage"]["estimated"] is True


async def test_every_route_of_v1_leaves_a_record(runtime: Runtime, tmp_path: Path) -> None:
    async with served(runtime, tmp_path) as server:
        await server.http.get("/v1/models", headers=bearer(LAB_KEY))
        await server.http.post("/v1/control/plan", json=CHAT, headers=bearer(LAB_KEY))
        await server.http.post("/v1/admin/policy/reload", headers=bearer(LAB_KEY))
        for path in ("/health", "/ready", "/metrics", "/v1/none"):
            await server.http.get(path)
        told = [(record["route"], record["status"]) for record in server.records()]
    assert told == [("/v1/models", 200), ("/v1/control/plan", 200), ("/v1/admin/policy/reload", 403)]


@pytest.mark.parametrize("stream", [False, True])
async def test_content_is_recorded_only_where_the_operator_says_so(
    runtime: Runtime, tmp_path: Path, stream: bool
) -> None:
    async with served(runtime, tmp_path, audit_content=True) as server:
        await server.ask(stream=stream)
        [record] = server.records()
    assert record["content"]["messages"] == CHAT["messages"]
    assert record["content"]["choices"][0]["message"]["content"] == "Yes."


@pytest.mark.parametrize("stream", [False, True])
async def test_rates_are_told_and_held(runtime: Runtime, tmp_path: Path, stream: bool) -> None:
    async with served(runtime, tmp_path, policy=RATED) as server:
        first = await server.ask(stream=stream)
        assert first.headers["x-ratelimit-limit-requests"] == "3"
        assert first.headers["x-ratelimit-remaining-requests"] == "2"
        for _ in range(2):
            assert (await server.ask(stream=stream)).status_code == 200
        refused = await server.ask(stream=stream)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert [record["status"] for record in server.records()] == [200, 200, 200, 429]
        assert len(server.engine.asked) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_are_counted_when_they_are_known(runtime: Runtime, tmp_path: Path, stream: bool) -> None:
    async with served(runtime, tmp_path, policy=RATED, engine=Engine(tokens=120)) as server:
        assert (await server.ask(stream=stream)).status_code == 200
        refused = await server.ask(stream=stream)
        assert refused.status_code == 429
        assert "tokens" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("counts", "least"), [(True, 120), (False, 3)])
async def test_the_tokens_of_a_stream_that_its_caller_leaves_are_counted(
    runtime: Runtime, tmp_path: Path, counts: bool, least: int
) -> None:
    engine = Engine(tokens=120, seconds=0.05, counts_as_it_goes=counts)
    async with served(runtime, tmp_path, policy=RATED, engine=engine) as server:
        await left_after_the_first_event(server.app)
        [record] = server.records()
    assert record["outcome"] == "cancelled"
    assert record["usage"]["total_tokens"] >= least
    assert record["usage"].get("estimated", False) is not counts


async def test_the_prompt_of_a_whole_answer_that_its_caller_leaves_is_counted(runtime: Runtime, tmp_path: Path) -> None:
    async with served(runtime, tmp_path, policy=RATED, engine=Engine(seconds=5)) as server:
        asking = asyncio.ensure_future(server.ask(messages=[{"role": "user", "content": "word " * 400}]))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert server.records()[0]["usage"]["estimated"] is True
        assert (await server.ask()).status_code == 429


async def test_an_engine_that_counts_nothing_has_its_tokens_estimated(runtime: Runtime, tmp_path: Path) -> None:
    async with served(runtime, tmp_path) as server:
        server.engine.complete = RecordingEngine().complete  # type: ignore[method-assign]
        await server.ask()
        usage = server.records()[0]["usage"]
    assert usage["estimated"] is True
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 10


async def left_after_the_first_event(app: ASGIApp) -> None:
    """A stream that is asked for, and left when its first event has come."""
    body = orjson.dumps({**CHAT, "stream": True})
    came = asyncio.Event()
    told: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if told:
            return told.pop()
        await came.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            came.set()

    await app(scope_of_chat(), receive, send)


def scope_of_chat() -> dict[str, Any]:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {LAB_KEY}".encode())]
    return {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"",
        "root_path": "", "headers": headers, "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip


async def test_the_last_events_come_when_the_request_is_over_for_its_limits(runtime: Runtime, tmp_path: Path) -> None:
    queue = FairQueue(running=1, waiting=0, deadline=10)
    async with served(runtime, tmp_path, queue=queue) as server:
        running: list[int] = []

        async def watched(message: Message) -> None:
            if b"[DONE]" in message.get("body", b""):
                running.append(queue.running)
                assert len(server.records()) == 1
                assert not message["more_body"]

        await asked_by_hand(server.app, watched)
    assert running == [0]


async def asked_by_hand(app: ASGIApp, seen: Callable[[Message], Awaitable[None]]) -> None:
    """A stream, of which every message is looked at as it is sent."""
    told: list[Message] = [{"type": "http.request", "body": orjson.dumps({**CHAT, "stream": True}), "more_body": False}]

    async def receive() -> Message:
        if told:
            return told.pop()
        await asyncio.Event().wait()
        raise AssertionError

    await app(scope_of_chat(), receive, seen)


async def test_requests_wait_for_their_turn_and_no_more_than_may(runtime: Runtime, tmp_path: Path) -> None:
    queue = FairQueue(running=1, waiting=1, deadline=10)
    async with served(runtime, tmp_path, engine=Engine(seconds=0.05), queue=queue) as server:
        told = await asyncio.gather(*(server.ask() for _ in range(3)))
        assert sorted(response.status_code for response in told) == [200, 200, 503]
        queued = [response.json()["control"]["timing_ms"].get("queued", 0) for response in told if response.is_success]
        assert sorted(waited > 20 for waited in queued) == [False, True]
    assert queue.running == queue.waiting == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_takes_too_long_is_ended(runtime: Runtime, tmp_path: Path, stream: bool) -> None:
    engine = Engine(seconds=0.2)
    async with served(runtime, tmp_path, engine=engine, request_seconds=0.3 if stream else 0.05) as server:
        response = await server.ask(stream=stream)
        assert response.status_code == (200 if stream else 504)
        assert "request_timeout" in response.text
        assert server.records()[0]["code"] == "request_timeout"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_log_that_fails_closed_lets_no_answer_out_unrecorded(
    runtime: Runtime, tmp_path: Path, stream: bool
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    async with served(runtime, folder, audit_fail_closed=True) as server:
        assert (await server.ask(stream=stream)).status_code == 200
        moved = folder.rename(tmp_path / "away")
        response = await server.ask(stream=stream)
        assert "audit_unavailable" in response.text
        assert response.status_code == (200 if stream else 503)
        assert "Yes." not in response.text
        assert '"control"' not in response.text
        assert response.text.count("[DONE]") == stream
        before = len(server.engine.asked)
        assert (await server.ask(stream=stream)).status_code == 503
        assert len(server.engine.asked) == before
        moved.rename(folder)
        await asyncio.sleep(1.05)
        assert (await server.ask(stream=stream)).status_code == 200
        assert [record["outcome"] for record in server.records()] == ["answered", "answered"]


async def test_a_log_that_fails_open_answers_all_the_same(runtime: Runtime, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    async with served(runtime, folder) as server:
        moved = folder.rename(tmp_path / "away")
        assert (await server.ask()).status_code == 200
        moved.rename(folder)
        assert (await server.ask()).status_code == 200
        assert len(server.records()) == 1


async def test_a_server_that_is_about_to_end_lets_nobody_in_and_ends_what_runs(
    runtime: Runtime, tmp_path: Path
) -> None:
    engine = Engine(seconds=0.1)
    admission = Admission()
    app = create_app(replace(runtime, engine=engine, admission=admission))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        running = asyncio.ensure_future(http.post("/v1/chat/completions", json={**CHAT, "stream": True}))
        await asyncio.sleep(0.05)
        ending = asyncio.ensure_future(admission.drain.done(within=5))
        await asyncio.sleep(0)
        refused = await http.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "5"
        assert (await http.get("/ready")).status_code == 503
        assert (await http.get("/health")).status_code == 200
        assert "[DONE]" in (await running).text
        assert await ending


async def test_what_does_not_end_in_time_is_told() -> None:
    drain = Admission().drain
    with drain.request():
        assert not await drain.done(within=0.02)


@pytest.mark.parametrize("sent", ["", "two words", "é", "x" * 129, "a\tb"])
async def test_an_id_that_is_no_plain_word_is_not_taken(runtime: Runtime, sent: str) -> None:
    transport = httpx.ASGITransport(create_app(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        headers = [(b"x-request-id", sent.encode())]
        given = (await http.get("/health", headers=headers)).headers["x-request-id"]
    assert given != sent
    assert len(given) == 32


def test_an_audit_log_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"none/audit\.jsonl cannot be written: No such file"):
        admission_from(Settings(audit=tmp_path / "none" / "audit.jsonl"))


@pytest.mark.parametrize(
    ("route", "more", "code"),
    [
        ("/v1/chat/completions", {"model": "another"}, "model_not_found"),
        ("/v1/chat/completions", {"model": "demo:nobody"}, "preset_not_found"),
        ("/v1/control/plan", {"model": "another"}, "model_not_found"),
        ("/v1/control/sweep", {"control": {"safety": 0.5, "mode": "magic"}}, "unknown_mode"),
        ("/v1/chat/completions", {"control": {"safety": 7}, "stream": True}, "invalid_value"),
    ],
)
async def test_what_was_asked_is_on_record_though_it_is_refused(
    runtime: Runtime, tmp_path: Path, route: str, more: dict[str, Any], code: str
) -> None:
    asked = {"safety": 0.25, "mode": "prompt", "unknown": {"x": 1}}
    async with served(runtime, tmp_path) as server:
        await server.http.post(route, json={**CHAT, "control": asked, **more}, headers=bearer(LAB_KEY))
        [record] = server.records()
    assert (record["code"], record["model"], record["stream"]) == (code, {**CHAT, **more}["model"], "stream" in more)
    assert record["asked"] == more.get("control", {"safety": 0.25, "mode": "prompt"})


@pytest.mark.parametrize(
    "route", ["/v1/chat/completions", "/v1/control/plan", "/v1/control/sweep", "/v1/control/score"]
)
async def test_a_caller_over_its_rates_costs_no_work(
    runtime: Runtime, tmp_path: Path, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(runtime, tmp_path, policy=RATED) as server:
        for _ in range(3):
            answer = await server.http.post("/v1/control/plan", json=CHAT, headers=bearer(LAB_KEY))
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        monkeypatch.setattr(body, "read_json_object", None)
        refused = await server.http.post(route, content=b"{", headers=bearer(LAB_KEY))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert server.engine.asked == []
