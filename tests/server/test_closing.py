"""When the server ends, scorers and engine are freed, one whatever becomes of the other, also on an app not our own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from fastapi import FastAPI

from rheostat_server.app import add_routes, create_app
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.reranking.track import Track
from rheostat_server.runtime import Runtime
from rheostat_server.scorers import Dialogue, ScorerCard, Scores
from rheostat_server.scorers.panel import Member, Panel
from tests.server.recording import RecordingEngine


@dataclass
class Scorer:
    """Tells `closed` of its end; one that is `stuck` cannot be freed."""

    name: str
    closed: list[str]
    stuck: bool = False
    card: ScorerCard = field(init=False)

    def __post_init__(self) -> None:
        self.card = ScorerCard(self.name, "test", "sha256:0", DIAL_NAMES)

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        return [Scores(0.5, 0.5) for _ in dialogues]

    async def close(self) -> None:
        self.closed.append(self.name)
        if self.stuck:
            raise ArithmeticError(self.name)


@dataclass
class Engine(RecordingEngine):
    closed: list[str] = field(default_factory=list)

    async def close(self) -> None:
        self.closed.append("engine")


def with_scorers(runtime: Runtime, closed: list[str], *, stuck: bool) -> Runtime:
    scorers = [Scorer("one", closed), Scorer("two", closed, stuck=stuck), Scorer("three", closed)]
    return replace(runtime, engine=Engine(closed=closed), track=Track(Panel([Member(scorer) for scorer in scorers])))


async def test_the_end_of_our_app_frees_scorers_and_engine(runtime: Runtime) -> None:
    closed: list[str] = []
    app = create_app(with_scorers(runtime, closed, stuck=False))
    async with app.router.lifespan_context(app):
        assert closed == []
    assert sorted(closed) == ["engine", "one", "three", "two"]


async def test_a_scorer_that_cannot_be_freed_keeps_no_other(runtime: Runtime) -> None:
    closed: list[str] = []
    with pytest.raises(ArithmeticError, match="two"):
        await with_scorers(runtime, closed, stuck=True).close()
    assert sorted(closed) == ["engine", "one", "three", "two"]


async def test_on_another_app_they_are_freed_within_its_own_lifespan(runtime: Runtime) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, int], None]:
        told.append("begun")
        yield {"theirs": 1}
        told.append("ended")

    app = FastAPI(lifespan=lifespan)
    add_routes(app)
    app.state.rheostat = with_scorers(runtime, told, stuck=False)
    async with app.router.lifespan_context(app) as state:
        assert state == {"theirs": 1}
        assert told == ["begun"]
    assert told[-1] == "ended"
    assert sorted(told[1:-1]) == ["engine", "one", "three", "two"]


async def test_an_app_that_never_had_a_runtime_ends_quietly() -> None:
    app = FastAPI()
    add_routes(app)
    async with app.router.lifespan_context(app):
        pass
