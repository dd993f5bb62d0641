"""An engine's two calls, answered with the best of N candidates: what the pipeline runs in the reranking modes."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Final

from rheostat_server.engines import DONE, Completion, Engine, EngineRequest
from rheostat_server.errors import ScorerUnavailable
from rheostat_server.modes.reranking import RerankPlan
from rheostat_server.reranking.answers import (
    Event,
    Usage,
    as_wanted,
    chosen_of,
    chunks_of,
    completion_of,
    refusal_of,
    usage_chunk,
)
from rheostat_server.reranking.breadth import Breadth, breadth
from rheostat_server.reranking.candidate import Candidate
from rheostat_server.reranking.facts import Facts, choice_attributes
from rheostat_server.reranking.race import Race, Rules, run_race
from rheostat_server.reranking.selection import Choice, Target, choose, left
from rheostat_server.reranking.track import Track
from rheostat_server.scorers import UNJUDGED, Scores
from rheostat_server.sse import event
from rheostat_server.tracing import NO_SPAN, Span

ALIKE: Final = Breadth(1, "the temperature is 0, so all candidates would be alike")


@dataclass(slots=True)
class Reranker:
    """Answers one request, in `span`; `facts` are whole when the answer is.

    `usage` is OpenAI's, of all candidates: also of those of an answer that was cut off.
    """

    engine: Engine
    track: Track
    plan: RerankPlan
    span: Span = NO_SPAN
    facts: Facts = field(init=False)
    usage: Usage | None = None

    def __post_init__(self) -> None:
        self.facts = Facts(self.plan.wanted)

    async def complete(self, request: EngineRequest) -> Completion:
        """The chosen answer; `usage` counts the tokens of all candidates."""
        with self.track.taken():
            await self._find_breadth()
            plain = self.engine.takes_n and not self.plan.schedule.checks
            return await (self._compared(request) if plain else self._raced(request))

    async def stream(self, request: EngineRequest) -> AsyncGenerator[bytes, None]:
        """The winner's events from its first one on, live once it is chosen."""
        options = request.body.get("stream_options") or {}
        with self.track.taken():
            await self._find_breadth()
            async with self._race(request) as race:
                winner = await race.winner()
                first: Event = {}
                async with aclosing(winner.live() if winner else self._refused(request, race)) as chunks:
                    async for chunk in chunks:
                        first = first or chunk
                        if wanted := as_wanted(chunk, options):
                            yield event(wanted)
                await self._settle(race, winner, sent=True)
                if options.get("include_usage") and race.usage:
                    yield event(usage_chunk(first, race.usage))
        yield DONE

    async def _refused(self, request: EngineRequest, race: Race) -> AsyncGenerator[dict[str, Any], None]:
        for chunk in chunks_of(self._refusal(request, race.usage)):
            yield chunk

    async def _compared(self, request: EngineRequest) -> Completion:
        """All candidates by one call of the engine, compared when they are whole."""
        body = {**request.body, "n": self.facts.generated}
        with self.span.child("engine", {"rheostat.candidates.generated": self.facts.generated}) as span:
            completion = await self.engine.complete(replace(request, body=body).within(span))
        texts = [choice["message"].get("content") or "" for choice in completion["choices"]]
        with self.span.child("choose") as span:
            choice = choose(await self._judge(span, texts), self._target)
            span.note(choice_attributes(choice))
        usage = completion.get("usage") or {}
        self._note(choice, finished=len(texts), tokens=usage.get("completion_tokens"))
        return self._refusal(request, usage) if choice.place is None else chosen_of(completion, choice.place)

    async def _raced(self, request: EngineRequest) -> Completion:
        """The candidates side by side, the worse ones dropped on the way."""
        async with self._race(request) as race:
            winner = await race.winner()
            if winner is not None:
                await winner.whole()
            await self._settle(race, winner, sent=False)
            return self._refusal(request, race.usage) if winner is None else completion_of(winner.events, race.usage)

    async def _find_breadth(self) -> None:
        found = ALIKE
        if not self.plan.alike:
            engine = await self.track.occupancy_of(self.engine)
            found = breadth(self.plan.wanted, engine, least=self.plan.least, requests=self.track.requests)
        self.facts.generated, self.facts.why = found.candidates, found.why

    @asynccontextmanager
    async def _race(self, request: EngineRequest) -> AsyncGenerator[Race, None]:
        most = request.body.get("max_completion_tokens") or request.body.get("max_tokens")
        rules = Rules(self._target, self.plan.schedule, self.track.expected_tokens(most))
        with self.span.child("race", {"rheostat.candidates.generated": self.facts.generated}) as span:
            async with (
                self.engine.fan_out(request.within(span), self.facts.generated) as streams,
                run_race(streams, rules, partial(self._judge, span), span) as race,
            ):
                try:
                    yield race
                finally:
                    self.usage = race.usage or race.estimate(request.body)

    async def _judge(self, span: Span, texts: Sequence[str]) -> list[Scores]:
        """Under a floor all scorers have to judge: what one of them would keep back does not pass without it."""
        started = perf_counter()
        found = await self.track.judge(span, self.plan.messages, texts, by_all=self.plan.floor > 0)
        self.facts.seconds_judging += perf_counter() - started
        self.facts.left_out |= found.left_out
        return found.scores

    async def _settle(self, race: Race, winner: Candidate | None, *, sent: bool) -> None:
        """Notes how the race ended. A winner that was chosen on the way is judged once more, now that it is whole.

        Scorers that fail then fail the request, unless the answer has been sent: its receipt comes without scores.
        """
        choice = race.choice or Choice(None)
        if winner is not None and race.chosen_at is not None:
            choice = await self._measured(choice, race, winner, sent=sent)
        if winner is not None and winner.finish_reason == "stop":
            self.track.learn(winner.tokens)
        self.facts.failed = race.failed
        self._note(choice, finished=race.finished, tokens=race.tokens, chosen_at=race.chosen_at)

    async def _measured(self, choice: Choice, race: Race, winner: Candidate, *, sent: bool) -> Choice:
        """The choice with the scores of the whole answer."""
        try:
            scores = await race.scores_of(winner)
        except ScorerUnavailable:
            if not sent:
                raise
            scores = UNJUDGED
        return replace(choice, scores=scores, left=left(scores, self.plan.target))

    def _note(self, choice: Choice, *, finished: int, tokens: int | None, chosen_at: int | None = None) -> None:
        facts = self.facts
        facts.choice, facts.finished, facts.tokens, facts.chosen_at = choice, finished, tokens, chosen_at

    def _refusal(self, request: EngineRequest, usage: Usage | None) -> Completion:
        return refusal_of(request, self.plan.refusal, usage)

    @property
    def _target(self) -> Target:
        return Target(self.plan.target, self.plan.floor)
