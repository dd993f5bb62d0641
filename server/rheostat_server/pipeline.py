"""One request from the dials asked for to the receipt: the file to read first."""

from asyncio import CancelledError
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rheostat_server.chat_request import ChatRequest
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed, RequestTimeout
from rheostat_server.heard import Heard
from rheostat_server.plan import ControlPlan, make_plan
from rheostat_server.policy import InForce, resolve, resolve_body
from rheostat_server.receipt import Stopwatch, make_receipt, plan_parts
from rheostat_server.record import Record
from rheostat_server.reranking.reranker import Reranker
from rheostat_server.runtime import Runtime
from rheostat_server.sse import Passage
from rheostat_server.telemetry import FIRST_EVENT, SECONDS, count_facts, count_plan, counted, unplanned
from rheostat_server.time_limit import each_within, within
from rheostat_server.tracing import NO_SPAN, Span
from rheostat_server.usage import estimated, metered, usage_of


class Runner(Protocol):
    """An engine's two calls; see `engines.Engine`."""

    async def complete(self, request: EngineRequest) -> Completion: ...

    def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose control has been compiled away: from here on the engine knows nothing of dials.

    `span` is that in which it is answered.
    """

    in_force: InForce
    plan: ControlPlan
    engine_request: EngineRequest
    timing: Stopwatch
    span: Span = NO_SPAN

    @property
    def candidates(self) -> int:
        """Sequences that the engine may have to run for it."""
        return self.plan.rerank.wanted if self.plan.rerank else self.plan.body.get("n") or 1

    def within(self, span: Span, *, urgent: bool) -> "Prepared":
        request = replace(self.engine_request, urgent=True) if urgent else self.engine_request
        return replace(self, engine_request=request.within(span), span=span)

    def receipt(self, runner: Runner) -> dict[str, Any]:
        """Marks the answer as complete."""
        self.timing.mark("total")
        facts = runner.facts if isinstance(runner, Reranker) else None
        if facts is not None:
            count_facts(self.plan, facts)
        return make_receipt(self.in_force, self.plan, self.timing, facts)


def prepare(chat: ChatRequest, runtime: Runtime) -> Prepared:
    """Policy, then plan. Pure but for the clock: a dry run stops here."""
    timing = Stopwatch()
    body, in_force = resolve_body(chat.body, resolve(chat.control, chat.caller.policy))
    plan = make_plan(replace(chat, body=body), in_force, runtime.means)
    timing.mark("plan")
    return Prepared(in_force, plan, EngineRequest(plan.body, chat.request_id, chat.headers), timing)


async def answer(chat: ChatRequest, runtime: Runtime, record: Record) -> Completion:
    """The whole answer with its receipt. Cancelling it frees the engine's request."""
    async with _let_in(chat, runtime, record) as (prepared, runner):
        async with within(runtime.settings.request_seconds):
            completion = await runner.complete(prepared.engine_request)
        record.usage = usage_of(completion, prepared.plan.body)
        completion["control"] = record.control = prepared.receipt(runner)
        if runtime.settings.audit_content:
            record.content["choices"] = completion["choices"]
    return completion


async def stream(chat: ChatRequest, runtime: Runtime, record: Record) -> AsyncGenerator[bytes, None]:
    """The events as they come, with the receipt in one more event before the last.

    These two come in one chunk, once the request is over for the engine and for its caller's limits. Closing the
    generator frees the engine's request.
    """
    passage, heard = Passage(), Heard() if runtime.settings.audit_content else None
    async with _let_in(chat, runtime, record) as (prepared, runner):
        async with aclosing(_chunks(runner, prepared.engine_request, chat, runtime, record)) as chunks:
            async for chunk in chunks:
                if "first_event" not in prepared.timing.marks:
                    prepared.timing.mark("first_event")
                    prepared.span.event("first_event")
                    FIRST_EVENT.labels(prepared.plan.mode).observe(prepared.timing.marks["first_event"] / 1000)
                if passed := passage.let_through(chunk):
                    if heard is not None:
                        heard.take(passed)
                    yield passed
                if passage.ended:
                    break
            else:
                raise EngineFailed("the engine's stream ended without its last event, data: [DONE]")
        record.control = prepared.receipt(runner)
        if heard is not None:
            record.content["choices"] = heard.choices
    yield passage.last_events(record.control)


@asynccontextmanager
async def _let_in(chat: ChatRequest, runtime: Runtime, record: Record) -> AsyncGenerator[tuple[Prepared, Runner], None]:
    """A request from its plan to its end, and what answers it: noted, let in, and counted."""
    _note(chat, runtime, record)
    with record.span.child("plan"), unplanned():
        prepared = prepare(chat, runtime)
    record.control = plan_parts(prepared.in_force, prepared.plan)
    mode, admission = prepared.plan.mode, runtime.admission
    with counted(mode):
        async with AsyncExitStack() as stack:
            with record.span.child("admission"):
                admitted = await stack.enter_async_context(
                    admission.admitted(chat.caller, candidates=prepared.candidates)
                )
            count_plan(prepared.in_force, prepared.plan)
            record.headers |= admitted.quota.headers()
            if admitted.turn.waited:
                prepared.timing.marks["queued"] = round(admitted.turn.waited * 1000, 3)
            await _load(prepared, runtime, record, stack)
            try:
                with _answering(prepared.plan, runtime, record) as span:
                    prepared = prepared.within(span, urgent=admitted.turn.urgent)
                    runner = runner_of(prepared, runtime)
                    try:
                        yield prepared, runner
                    finally:
                        record.usage = _candidates_usage(runner) or record.usage
            except (CancelledError, GeneratorExit, RequestTimeout):
                record.usage = record.usage or estimated(prepared.plan.body)
                raise
            finally:
                await admission.spend(chat.caller, record.tokens)
    SECONDS.labels(mode).observe(prepared.timing.marks["total"] / 1000)


async def _load(prepared: Prepared, runtime: Runtime, record: Record, request: AsyncExitStack) -> None:
    """Has the engine hold what the plan blends until the request is over, a stream or a race to its last event.

    It may take as long as an answer.
    """
    if (point := prepared.plan.blend) is None:
        return
    if runtime.rack is None:
        raise RuntimeError("a plan blends, and the runtime has no rack: they are built together")
    if not point.parts:
        return
    with record.span.child("blend"):
        async with within(runtime.settings.request_seconds):
            await request.enter_async_context(runtime.rack.held(point))
    prepared.timing.mark("blend")


def _answering(plan: ControlPlan, runtime: Runtime, record: Record) -> Span:
    """The span of the whole answer."""
    return record.span.child("rerank" if plan.rerank else "engine", {"rheostat.engine": runtime.engine.name})


def _candidates_usage(runner: Runner) -> Mapping[str, Any] | None:
    return runner.usage if isinstance(runner, Reranker) else None


def _note(chat: ChatRequest, runtime: Runtime, record: Record) -> None:
    record.model, record.stream, record.asked = chat.model, chat.wants_stream, chat.control.as_json()
    if runtime.settings.audit_content:
        record.content["messages"] = chat.body["messages"]


def _chunks(
    runner: Runner, request: EngineRequest, chat: ChatRequest, runtime: Runtime, record: Record
) -> AsyncGenerator[bytes, None]:
    """The engine's stream; a token passes through no more than the operator's settings need."""
    chunks = runner.stream(request)
    if runtime.admission.counts_tokens(chat.caller) and not isinstance(runner, Reranker):
        chunks = metered(runner.stream, request, record, counts_as_it_goes=runtime.engine.counts_as_it_goes)
    seconds = runtime.settings.request_seconds
    return chunks if seconds is None else each_within(seconds, chunks)


def runner_of(prepared: Prepared, runtime: Runtime) -> Runner:
    """What answers: the engine, or in a reranking mode the best of its candidates."""
    if (rerank := prepared.plan.rerank) is None:
        return runtime.engine
    if runtime.track is None:
        raise RuntimeError("a plan reranks, and the runtime has no scorers: they are built together")
    return Reranker(runtime.engine, runtime.track, rerank, prepared.span)
