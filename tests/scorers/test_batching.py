"""Batches across requests: bounded, in order, freed when a caller leaves, honest when the model fails or is slow."""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from prometheus_client import REGISTRY

from rheostat_server.errors import ScorerUnavailable
from rheostat_server.scorers import UNJUDGED, Dialogue, ScorerCard, Scores
from rheostat_server.scorers.batching import Batched, Limits

CARD = ScorerCard("counter", "test", "sha256:0", ("safety",))


@dataclass
class Counter:
    """Gives each answer, a number, as its level; keeps the sizes of its batches."""

    seconds: float = 0.0
    fails: bool = False
    batches: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    card: ScorerCard = CARD

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        self.batches.append(len(dialogues))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        if self.fails:
            raise ArithmeticError(dialogues[0].answer)
        return [Scores(safety=float(dialogue.answer)) for dialogue in dialogues]


@dataclass
class Silent(Counter):
    """Judges no empty answer."""

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        return [Scores(float(dialogue.answer)) if dialogue.answer else UNJUDGED for dialogue in dialogues]


def dialogues(*levels: float) -> list[Dialogue]:
    return [Dialogue([], str(level)) for level in levels]


async def test_calls_of_many_requests_are_judged_together_and_told_apart() -> None:
    counter = Counter(seconds=0.02)
    scorer = Batched(counter, Limits(batch=8))
    calls = [scorer.score(dialogues(number / 10, number / 10 + 0.05)) for number in range(6)]
    found = await asyncio.gather(*calls)
    assert [[each.safety for each in call] for call in found] == [[n / 10, n / 10 + 0.05] for n in range(6)]
    assert counter.batches[0] <= 8
    assert len(counter.batches) <= 3
    assert sum(counter.batches) == 12
    assert len(counter.threads) == 1
    assert threading.current_thread().name not in counter.threads
    await scorer.close()


async def test_a_call_larger_than_a_batch_is_judged_in_several() -> None:
    counter = Counter()
    scorer = Batched(counter, Limits(batch=4))
    levels = [number / 16 for number in range(10)]
    assert [each.safety for each in await scorer.score(dialogues(*levels))] == levels
    assert counter.batches == [4, 4, 2]
    await scorer.close()


async def test_nothing_is_judged_of_nothing() -> None:
    counter = Counter()
    assert await Batched(counter).score([]) == []
    assert counter.batches == []


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    scorer = Batched(Counter(seconds=0.05), Limits(batch=1, queue=3))
    waiting = asyncio.ensure_future(scorer.score(dialogues(0.1, 0.2, 0.3)))
    await asyncio.sleep(0)
    with pytest.raises(ScorerUnavailable, match="its queue holds 3") as refused:
        await scorer.score(dialogues(0.4, 0.5, 0.6))
    assert refused.value.headers == {"Retry-After": "1"}
    assert len(await waiting) == 3
    await scorer.close()


async def test_a_deadline_ends_the_wait_and_frees_the_queue() -> None:
    scorer = Batched(Counter(seconds=0.2), Limits(batch=1, deadline=0.05))
    with pytest.raises(ScorerUnavailable, match=r"within its deadline of 0\.05 s"):
        await scorer.score(dialogues(0.1, 0.2, 0.3))
    assert scorer.queued == 0
    await scorer.close()


async def test_a_call_that_is_cancelled_leaves_the_queue_and_harms_no_other() -> None:
    counter = Counter(seconds=0.03)
    scorer = Batched(counter, Limits(batch=2))
    first, second, third = (asyncio.ensure_future(scorer.score(dialogues(level, level))) for level in (0.1, 0.2, 0.3))
    await asyncio.sleep(0.01)
    second.cancel()
    assert [each.safety for each in await first] == [0.1, 0.1]
    assert [each.safety for each in await third] == [0.3, 0.3]
    with pytest.raises(asyncio.CancelledError):
        await second
    assert counter.batches == [2, 2]
    await scorer.close()
    assert not scorer.busy


async def test_a_model_that_fails_is_told_without_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    scorer = Batched(Counter(fails=True))
    with pytest.raises(ScorerUnavailable, match="failed: ArithmeticError") as failed:
        await scorer.score([Dialogue([], "secret")])
    assert "secret" not in failed.value.message
    assert "secret" not in "".join(capsys.readouterr())
    await scorer.close()


async def test_one_call_that_fails_its_batch_fails_nobody_else() -> None:
    scorer = Batched(Counter(seconds=0.02))
    first = asyncio.ensure_future(scorer.score(dialogues(0.1)))
    await asyncio.sleep(0.005)
    bad, good = scorer.score([Dialogue([], "no number")]), scorer.score(dialogues(0.2))
    found = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(found[0], ScorerUnavailable)
    assert found[1] == [Scores(safety=0.2)]
    assert await first == [Scores(safety=0.1)]
    assert scorer.queued == 0
    await scorer.close()


async def test_what_could_not_be_judged_is_counted() -> None:
    def sample(name: str) -> float:
        return REGISTRY.get_sample_value(f"rheostat_scorer_{name}_total", {"scorer": CARD.name}) or 0

    before = sample("dialogues"), sample("unjudged")
    scorer = Batched(Silent())
    await scorer.score([Dialogue([], ""), Dialogue([], "0.5")])
    assert (sample("dialogues"), sample("unjudged")) == (before[0] + 2, before[1] + 1)
    await scorer.close()


async def test_a_closed_scorer_judges_no_more() -> None:
    scorer = Batched(Counter())
    await scorer.close()
    await scorer.close()
    with pytest.raises(ScorerUnavailable, match="is closed"):
        await scorer.score(dialogues(0.1))


@pytest.mark.parametrize("name", ["batch", "queue", "deadline"])
def test_a_limit_is_above_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be above 0"):
        Limits(**{name: 0})


@dataclass
class Threaded(Counter):
    """Tells by how many processor threads it would compute."""

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        self.batches.append(torch.get_num_threads())
        return super().scores(dialogues)


async def test_threads_of_one_scorer_are_not_those_of_another() -> None:
    before = torch.get_num_threads()
    several, one, plain = Threaded(), Threaded(), Threaded()
    for local, threads in ((several, before + 2), (one, before + 1), (plain, None)):
        await Batched(local, threads=threads).score(dialogues(0.5))
    assert [local.batches[0] for local in (several, one, plain)] == [before + 2, before + 1, before]
    assert torch.get_num_threads() == before
