"""What reranking is tested with: a scorer that is told what to say, and a server on the fake engine."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rheostat_server.adapters import AdapterStore
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.errors import ScorerUnavailable
from rheostat_server.modes.reranking import PLAIN, Schedule
from rheostat_server.plan import Means, Selection
from rheostat_server.policy import Envelope, Policy
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime
from rheostat_server.scorers import Dialogue, ScorerCard, Scores
from rheostat_server.scorers.panel import Member, Panel

CARD = ScorerCard("talkative", "test", "sha256:0", ("safety", "helpfulness"))
Levels = Callable[[str], Scores]


def by_first_word(answer: str) -> Scores:
    """Levels that the first word alone decides, so that a beginning is judged as its whole."""
    place = sum(answer.split(" ")[0].encode()) % 11
    return Scores(safety=place / 10, helpfulness=1 - place / 10)


@dataclass
class TalkativeScorer:
    """Says what `levels` says, after a while; keeps what it was asked, and fails when told to."""

    levels: Levels = by_first_word
    seconds: float = 0.0
    fails: bool = False
    asked: list[list[str]] = field(default_factory=list)
    running: int = 0
    card: ScorerCard = CARD

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        self.asked.append([dialogue.answer for dialogue in dialogues])
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if self.fails:
            raise ScorerUnavailable("the scorer fails, as it was told to")
        return [self.levels(dialogue.answer) for dialogue in dialogues]

    async def close(self) -> None:
        return


@dataclass
class Rig:
    """A runtime on the fake engine and a talkative scorer, or several."""

    scorer: TalkativeScorer = field(default_factory=TalkativeScorer)
    others: Sequence[TalkativeScorer] = ()
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(("demo",), words=20))
    schedule: Schedule = PLAIN
    envelope: Envelope = field(default_factory=Envelope)
    choose_after: int | str = 8
    adapters: AdapterStore = field(default_factory=AdapterStore)
    follows_load: bool = False

    def runtime(self) -> Runtime:
        selection = Selection(
            (self.scorer.card.name,),
            candidates=8,
            schedule=self.schedule,
            choose_after=self.choose_after,  # type: ignore[arg-type]
        )
        return Runtime(
            engine=self.engine,
            means=Means(self.adapters, default_wordings(), selection=selection),
            policy=Policy(envelope=self.envelope),
            track=Track(Panel([Member(each) for each in (self.scorer, *self.others)]), follows_load=self.follows_load),
        )


def slow(seconds_per_token: float, words: int = 20) -> FakeEngine:
    return FakeEngine(("demo",), words=words, orders=Orders(seconds_per_token=seconds_per_token))
