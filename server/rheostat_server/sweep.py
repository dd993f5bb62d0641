"""One conversation answered at a grid of dials: every point passes the pipeline as a request of its own."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Final

from rheostat_server import pipeline
from rheostat_server.chat_request import ChatRequest
from rheostat_server.contract.dials import DialName
from rheostat_server.engines import Completion
from rheostat_server.errors import RheostatError
from rheostat_server.modes.reranking import conversation
from rheostat_server.record import Record
from rheostat_server.runtime import Runtime

AT_ONCE: Final = 4
"""Points that run side by side, so that a sweep leaves room for others; fewer where the caller may have fewer."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the dials, and its place in the sweep."""

    index: int
    dials: Mapping[DialName, float]


@dataclass(frozen=True, slots=True)
class Reached:
    """What became of a point: an answer with its levels by dial, or the error that ended it.

    `scores` is None where the server has no scorers or they failed, and a level is None that could not be judged.
    """

    point: Point
    completion: Completion | None = None
    scores: Mapping[str, float | None] | None = None
    error: RheostatError | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """A conversation and the points to answer it at; with `judged`, answers are scored where the server can.

    `route` is under which its points are recorded.
    """

    chat: ChatRequest
    points: Sequence[Point]
    route: str
    judged: bool = True
    usage: dict[str, int] = field(default_factory=dict)

    def check(self, runtime: Runtime) -> None:
        """Raises what a request at any of the points would be refused for; nothing is run."""
        for point in self.points:
            pipeline.prepare(self._at(point), runtime)

    async def answers(self, runtime: Runtime, record: Record) -> AsyncGenerator[Reached, None]:
        """The points as they are reached, in any order; closing the generator frees the engine of the others.

        Raises:
            AuditUnavailable: a point could not be recorded, and the operator wants every request to be.
        """
        places = asyncio.Semaphore(min(AT_ONCE, self.chat.caller.policy.envelope.rates.parallel or AT_ONCE))
        reaching = [asyncio.ensure_future(self._reach(point, runtime, record, places)) for point in self.points]
        try:
            for reached in asyncio.as_completed(reaching):
                yield await reached
        finally:
            for task in reaching:
                task.cancel()
            await asyncio.gather(*reaching, return_exceptions=True)

    def _at(self, point: Point) -> ChatRequest:
        control = replace(self.chat.control, dials={**self.chat.control.dials, **point.dials})
        return replace(self.chat, control=control, request_id=f"{self.chat.request_id}-{point.index}")

    async def _reach(self, point: Point, runtime: Runtime, record: Record, places: asyncio.Semaphore) -> Reached:
        async with places:
            chat = self._at(point)
            own = Record(chat.request_id, self.route, part_of=record.request_id, caller=chat.caller, span=record.span)
            try:
                completion = await pipeline.answer(chat, runtime, own)
                own.answered()
                self._count(completion)
                return Reached(point, completion, await self._scores(completion, runtime, own))
            except RheostatError as exc:
                own.failed(exc)
                return Reached(point, error=exc)
            except Exception as exc:
                own.failed(exc)
                raise
            finally:
                if runtime.admission.audit is not None:
                    await asyncio.shield(asyncio.ensure_future(runtime.admission.audit.write(own.as_json())))

    def _count(self, completion: Completion) -> None:
        for name, tokens in (completion.get("usage") or {}).items():
            if isinstance(tokens, int):
                self.usage[name] = self.usage.get(name, 0) + tokens

    async def _scores(
        self, completion: Completion, runtime: Runtime, record: Record
    ) -> Mapping[str, float | None] | None:
        """Those of a reranked answer's receipt; of another answer, what the scorers say."""
        if not self.judged or runtime.track is None:
            return None
        if known := completion["control"].get("scores"):
            return {"safety": known.get("safety"), "helpfulness": known.get("helpfulness")}
        text = completion["choices"][0]["message"].get("content")
        if not isinstance(text, str):
            return None
        try:
            judged = await runtime.track.judge(record.span, conversation(self.chat.body["messages"]), [text])
        except RheostatError:
            return None
        return {"safety": judged.scores[0].safety, "helpfulness": judged.scores[0].helpfulness}


def grid(levels: Mapping[DialName, Sequence[float]]) -> list[Point]:
    """Every setting of the dials' levels, the last dial's changing fastest."""
    names = list(levels)
    settings = product(*(levels[name] for name in names))
    return [Point(index, dict(zip(names, setting, strict=True))) for index, setting in enumerate(settings)]


def as_json(reached: Reached) -> dict[str, Any]:
    """A point on the wire, but for an error's own form."""
    dials = {str(name): value for name, value in reached.point.dials.items()}
    told: dict[str, Any] = {"index": reached.point.index, **dials}
    if (completion := reached.completion) is None:
        return told
    choice = completion["choices"][0]
    parts = {
        "content": choice["message"].get("content"),
        "finish_reason": choice.get("finish_reason"),
        "scores": reached.scores,
        "usage": completion.get("usage"),
        "control": completion["control"],
    }
    return told | {name: part for name, part in parts.items() if part is not None}
