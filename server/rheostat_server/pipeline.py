"""One request from the dials asked for to the receipt: the file to read first."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rheostat_server.chat_request import ChatRequest
from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed
from rheostat_server.plan import ControlPlan, make_plan
from rheostat_server.policy import InForce, resolve, resolve_body
from rheostat_server.receipt import Stopwatch, make_receipt
from rheostat_server.reranking.reranker import Reranker
from rheostat_server.runtime import Runtime
from rheostat_server.sse import Passage
from rheostat_server.telemetry import FIRST_EVENT, SECONDS, count_facts, count_plan, counted


class Runner(Protocol):
    """An engine's two calls; see `engines.Engine`."""

    async def complete(self, request: EngineRequest) -> Completion: ...

    def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose control has been compiled away: from here on the engine knows nothing of dials."""

    in_force: InForce
    plan: ControlPlan
    engine_request: EngineRequest
    timing: Stopwatch

    def receipt(self, runner: Runner) -> dict[str, Any]:
        """Marks the answer as complete."""
        self.timing.mark("total")
        facts = runner.facts if isinstance(runner, Reranker) else None
        if facts is not None:
            count_facts(self.plan.mode, facts)
        return make_receipt(self.in_force, self.plan, self.timing, facts)


def prepare(chat: ChatRequest, runtime: Runtime) -> Prepared:
    """Policy, then plan. Pure but for the clock: a dry run stops here."""
    timing = Stopwatch()
    body, in_force = resolve_body(chat.body, resolve(chat.control, chat.caller.policy))
    plan = make_plan(replace(chat, body=body), in_force, runtime.means)
    timing.mark("plan")
    return Prepared(in_force, plan, EngineRequest(plan.body, chat.request_id, chat.headers), timing)


async def answer(chat: ChatRequest, runtime: Runtime) -> Completion:
    """The whole answer with its receipt. Cancelling it frees the engine's request."""
    prepared = prepare(chat, runtime)
    count_plan(prepared.in_force, prepared.plan)
    runner = runner_of(prepared.plan, runtime)
    with counted(prepared.plan.mode):
        completion = await runner.complete(prepared.engine_request)
    completion["control"] = prepared.receipt(runner)
    SECONDS.labels(prepared.plan.mode).observe(prepared.timing.marks["total"] / 1000)
    return completion


async def stream(chat: ChatRequest, runtime: Runtime) -> AsyncGenerator[bytes, None]:
    """The events as they come, with the receipt in one more event before the last.

    Closing the generator frees the engine's request.
    """
    prepared = prepare(chat, runtime)
    count_plan(prepared.in_force, prepared.plan)
    runner = runner_of(prepared.plan, runtime)
    passage = Passage()
    with counted(prepared.plan.mode):
        async with aclosing(runner.stream(prepared.engine_request)) as chunks:
            async for chunk in chunks:
                if "first_event" not in prepared.timing.marks:
                    prepared.timing.mark("first_event")
                    FIRST_EVENT.labels(prepared.plan.mode).observe(prepared.timing.marks["first_event"] / 1000)
                if passed := passage.let_through(chunk):
                    yield passed
                if passage.ended:
                    break
            else:
                raise EngineFailed("the engine's stream ended without its last event, data: [DONE]")
        yield passage.last_events(prepared.receipt(runner))
    SECONDS.labels(prepared.plan.mode).observe(prepared.timing.marks["total"] / 1000)


def runner_of(plan: ControlPlan, runtime: Runtime) -> Runner:
    """What answers: the engine, or in a reranking mode the best of its candidates."""
    if plan.rerank is None:
        return runtime.engine
    if runtime.track is None:
        raise RuntimeError("a plan reranks, and the runtime has no scorers: they are built together")
    return Reranker(runtime.engine, runtime.track, plan.rerank)
