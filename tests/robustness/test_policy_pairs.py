"""20,000 random policies and requests: nothing in force ever leaves what the policy file lets the caller have."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from rheostat_server import pipeline
from rheostat_server.api.chat_body import read_chat_request
from rheostat_server.app import create_app
from rheostat_server.blending.store import BlendPoint
from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.schema import PolicyPart
from rheostat_server.callers.shelf import Shelf
from rheostat_server.errors import InvalidField, NotFound, NotPermitted, RheostatError
from rheostat_server.held import HELD
from rheostat_server.modes.reranking import DRAWN_BY
from rheostat_server.pipeline import Prepared
from rheostat_server.runtime import Runtime, admission_from
from rheostat_server.settings import Settings
from tests.robustness import rigs
from tests.robustness.pairs import ADAPTERS, DIALS, Said, caller_of, policies, requests
from tests.server.callers.files import write

TOGETHER: Final = 10
"""Requests that are drawn for one policy."""
RUNTIME: Final = rigs.runtime()
MOVED: Final = {**{f"control.{name}": name for name in (*DIALS, "candidates")},
                **{name: name for name in ("n", "max_tokens", "max_completion_tokens")}}  # fmt: skip
"""What a refusal blames where a clamping envelope would have moved it."""
WRITTEN: Final = re.compile(r"\[helpful=(?P<helpfulness>[\d.]+)\]\[harmless=(?P<safety>[\d.]+)\]")
HALF_A_PLACE: Final = 0.005
"""Control text has two decimals."""

batches = st.lists(requests(), min_size=TOGETHER, max_size=TOGETHER)
unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large]


def read(asked: dict[str, Any], part: PolicyPart) -> Prepared:
    """As the API reads it, from bytes, up to what the engine would be asked."""
    headers = [(name.lower().encode(), value.encode()) for name, value in asked["headers"].items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"",
             "headers": [(b"content-type", b"application/json"), *headers]}  # fmt: skip
    body = orjson.dumps(asked["body"])

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def prepared() -> Prepared:
        return pipeline.prepare(await read_chat_request(Request(scope, receive), RUNTIME, caller_of(part)), RUNTIME)

    return at_once(prepared())


def at_once(work: Coroutine[Any, Any, Prepared]) -> Prepared:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: Prepared = done.value
        return result
    raise AssertionError("reading a body that is there does not wait")


@settings(max_examples=2_000, suppress_health_check=unhurried, deadline=None)
@given(part=policies(), batch=batches)
def pairs_stay_within(seen: Counter[str], part: PolicyPart, batch: list[dict[str, Any]]) -> None:
    for asked in batch:
        said = Said(part, asked)
        try:
            prepared = read(asked, part)
        except RheostatError as refusal:
            check_refusal(refusal, said)
            seen[f"{type(refusal).__name__}"] += 1
            seen["goes around"] += refusal.param in HELD
            continue
        check_dials(prepared, said)
        check_mode(prepared, said)
        check_names(prepared, said)
        check_engine_request(prepared, said)
        assert said.around(prepared.in_force.mode) == []
        assert list(prepared.in_force.clamped) == said.beyond
        assert said.envelope.outside == "clamp" or not said.beyond
        seen[prepared.plan.mode] += 1
        seen["clamped"] += bool(said.beyond)


@pytest.mark.slow
def test_nothing_in_force_leaves_the_policy() -> None:
    seen: Counter[str] = Counter()
    pairs_stay_within(seen)
    asked = seen.total() - seen["clamped"] - seen["goes around"]
    assert asked >= 20_000, seen
    for what in (
        "off",
        "prompt",
        "adapter",
        "blend",
        *DRAWN_BY,
        "clamped",
        "NotPermitted",
        "UnknownPreset",
        "InvalidField",
        "goes around",
    ):
        assert seen[what] >= 50, seen


def check_dials(prepared: Prepared, said: Said) -> None:
    for name, value in prepared.in_force.dials.as_dict().items():
        low, high = said.range(name)
        assert low <= value <= high
        assert value >= getattr(said.part.floor, name)
        if low <= (wanted := said.asked.get(name, value)) <= high:
            assert value == wanted
    plan = prepared.plan
    assert plan.effective == (None if plan.mode == "off" else prepared.in_force.dials)
    if plan.control_text and plan.control_values is None and plan.effective:
        written = WRITTEN.fullmatch(plan.control_text)
        assert written is not None
        for name, value in plan.effective.as_dict().items():
            check_written(float(written[name]), value, said.range(name))
    if plan.control_values is not None:
        for name, control in plan.control_values.as_dict().items():
            check_control_value(control, said.range(name), is_calibrated=plan.mode == "adapter")


def check_written(written: float, value: float, limits: tuple[float, float]) -> None:
    """The nearest step, or where that is outside of the limits the next one, if that is within."""
    outside = not limits[0] <= round(value, 2) <= limits[1]
    assert abs(written - value) <= HALF_A_PLACE * (2 if outside else 1) + 1e-9


def check_control_value(control: float, limits: tuple[float, float], *, is_calibrated: bool) -> None:
    """A level that is taken in a dial's place is no lower than its limits; one of a curve, as far as the curve goes."""
    if is_calibrated:
        assert rigs.SCORES[control] >= min(limits[0], max(rigs.SCORES.values()))
    else:
        assert limits[0] <= control <= limits[1]


def check_mode(prepared: Prepared, said: Said) -> None:
    mode, held = prepared.plan.mode, said.modes
    assert mode != "auto"
    assert mode in held or ("auto" in held and mode in ("adapter", "blend", "prompt"))
    if mode not in held:
        assert not held & {"adapter", "blend", "prompt"}, "auto takes a mode that the envelope holds, if it can"
    if mode == "off":
        assert "off" in (said.envelope.modes or [])


def check_names(prepared: Prepared, said: Said) -> None:
    envelope, plan = said.envelope, prepared.plan
    assert envelope.models is None
    if said.preset is not None:
        assert envelope.presets is None or said.preset in envelope.presets
    if plan.adapter is not None and envelope.adapters is not None:
        assert {plan.adapter, plan.adapter.split("@")[0]} & set(envelope.adapters)
    drawn_by = DRAWN_BY.get(plan.mode, plan.mode)
    assert (plan.body["model"] in ADAPTERS) == (drawn_by == "adapter")
    assert (plan.blend is not None) == (drawn_by == "blend")
    if plan.blend is not None:
        check_weights(plan.blend, said)


def check_weights(point: BlendPoint, said: Said) -> None:
    """Those of the curves at dials that the caller may have."""
    low, high = said.range("safety")
    assert 0.5 + low / 2 - 1e-6 <= point.weights["safe"] <= 0.5 + high / 2 + 1e-6
    low, high = said.range("helpfulness")
    assert low - 1e-6 <= point.weights["help"] <= high + 1e-6


def check_engine_request(prepared: Prepared, said: Said) -> None:
    body, most = prepared.engine_request.body, said.most
    assert "control" not in body
    assert (body.get("n") or 1) <= most["n"]  # type: ignore[operator]
    assert prepared.candidates <= most["candidates"]  # type: ignore[operator]
    assert (prepared.plan.rerank is not None) == (prepared.plan.mode in DRAWN_BY)
    bounds = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    if (limit := most["max_tokens"]) is not None:
        assert body["max_tokens"] == min(bounds) == max(bounds)
        assert 1 <= body["max_tokens"] <= limit
        assert 0 <= (body.get("min_tokens") or 0) <= body["max_tokens"]
    if prepared.plan.rerank:
        assert prepared.plan.rerank.target == prepared.in_force.dials
        assert prepared.plan.rerank.floor == (said.envelope.safety_floor or 0.0)


def check_refusal(refusal: RheostatError, said: Said) -> None:
    """Only what the envelope does not hold is forbidden, and it is named."""
    assert isinstance(refusal, (NotPermitted, NotFound, InvalidField))
    if not isinstance(refusal, NotPermitted):
        return
    assert "envelope 'one' allows" in refusal.message
    if (moved := MOVED.get(refusal.param or "")) is not None:
        assert said.envelope.outside == "reject"
        assert moved in said.beyond


@dataclass(frozen=True)
class Served:
    """The whole app, whose policy can be exchanged."""

    http: httpx.AsyncClient
    shelf: Shelf
    audit: Path

    async def ask(self, asked: dict[str, Any], *, stream: bool) -> tuple[httpx.Response, list[dict[str, Any]]]:
        """The response, and the records that it left."""
        before = self.audit.stat().st_size
        body = {**asked["body"], "stream": stream}
        response = await self.http.post("/v1/chat/completions", json=body, headers=asked["headers"])
        with self.audit.open("rb") as file:
            file.seek(before)
            return response, [json.loads(line) for line in file]


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[Served, None]:
    given = Settings(audit=folder / "audit.jsonl", audit_max_bytes=2**40)
    shelf = Shelf.read(write(folder), Defaults())
    runtime: Runtime = replace(rigs.runtime(given), shelf=shelf, admission=admission_from(given))
    app: FastAPI = create_app(runtime)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        (folder / "audit.jsonl").touch()
        yield Served(http, shelf, folder / "audit.jsonl")


def receipt_of(response: httpx.Response, *, stream: bool) -> dict[str, Any]:
    if not stream:
        return dict(response.json()["control"])
    return dict(orjson.loads(response.text.split("\n\n")[-3].removeprefix("data: "))["control"])


async def agree(server: Served, part: PolicyPart, batch: list[dict[str, Any]], seen: Counter[str]) -> None:
    server.shelf.book = Book.of(part, Defaults())
    for place, asked in enumerate(batch):
        stream = bool(place % 2)
        response, records = await server.ask(asked, stream=stream)
        assert len(records) == 1
        record = records[0]
        assert record["status"] == response.status_code
        assert record["request_id"] == response.headers["x-request-id"]
        assert response.status_code in (200, 403, 404, 422, 400), response.text
        if response.status_code != 200:
            assert record["outcome"] == "refused"
            assert record["code"] == response.json()["error"]["code"]
            seen["refused"] += 1
            continue
        receipt, said = receipt_of(response, stream=stream), Said(part, asked)
        assert record["control"] == receipt
        assert record["outcome"] == "answered"
        dials = list(DIALS) if receipt["mode"] == "off" else []
        assert receipt.get("clamped", []) == [name for name in said.beyond if name not in dials]
        seen[receipt["mode"]] += 1


def test_receipt_and_audit_record_agree_whatever_is_asked(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        serving = served(tmp_path)
        server = runner.run(serving.__aenter__())

        @settings(max_examples=300, suppress_health_check=unhurried, deadline=None)
        @given(part=policies(), batch=batches)
        def pairs_agree(part: PolicyPart, batch: list[dict[str, Any]]) -> None:
            runner.run(agree(server, part, batch, seen))

        try:
            pairs_agree()
        finally:
            runner.run(serving.__aexit__(None, None, None))
    assert seen.total() >= 3_000
    assert all(seen[mode] for mode in ("prompt", "adapter", "blend", *DRAWN_BY, "refused")), seen
