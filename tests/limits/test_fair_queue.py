"""A slot goes to whoever used the least lately; a full queue refuses the one that fills it; nobody is lost or kept."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_server.limits.fair_queue import LIGHT, FairQueue, NoQueue, Turn
from rheostat_server.limits.refusals import QueueFull, QueueTimeout
from tests.limits.metrics import value
from tests.limits.simulated import now, run_simulated


def queue_of(running: int, *, waiting: int = 1000, deadline: float = 1000) -> FairQueue:
    return FairQueue(running=running, waiting=waiting, deadline=deadline, clock=now)


async def served(queue: FairQueue, caller: str, seconds: float, order: list[str] | None = None) -> float:
    async with queue.turn(caller) as turn:
        if order is not None:
            order.append(caller)
        await asyncio.sleep(seconds)
        return turn.waited


async def begun(queue: FairQueue, caller: str, seconds: float, order: list[str] | None = None) -> "asyncio.Task[float]":
    task = asyncio.ensure_future(served(queue, caller, seconds, order))
    await asyncio.sleep(0)
    return task


def test_a_free_slot_is_taken_at_once_and_the_next_waits_its_turn() -> None:
    async def scene() -> None:
        queue = queue_of(1)
        first, second = await begun(queue, "a", 3), await begun(queue, "a", 1)
        assert (queue.running, queue.waiting) == (1, 1)
        assert [value("rheostat_queue_running"), value("rheostat_queue_waiting")] == [1, 1]
        assert [await first, await second] == [0, 3]
        assert [value("rheostat_queue_running"), value("rheostat_queue_waiting")] == [0, 0]

    run_simulated(scene())


def test_who_used_less_goes_first_and_within_a_caller_the_first_to_come() -> None:
    async def scene() -> list[str]:
        queue, order = queue_of(1), list[str]()
        for caller, seconds in [("heavy", 5), ("heavy", 1), ("heavy", 2), ("light", 1), ("light", 1)]:
            await begun(queue, caller, seconds, order)
        await asyncio.sleep(100)
        return order

    assert run_simulated(scene()) == ["heavy", "light", "light", "heavy", "heavy"]


def test_what_runs_now_counts_so_a_caller_with_many_running_is_not_taken_for_idle() -> None:
    async def scene() -> list[str]:
        queue, order = queue_of(3), list[str]()
        await served(queue, "short", 1)
        for caller, seconds in [("long", 50), ("long", 50), ("other", 9), ("long", 1), ("short", 1)]:
            await begun(queue, caller, seconds, order)
        await asyncio.sleep(100)
        return order

    assert run_simulated(scene())[-2:] == ["short", "long"]


def test_use_of_long_ago_does_not_count() -> None:
    async def scene() -> list[str]:
        queue, order = queue_of(1), list[str]()
        await served(queue, "once", 30)
        await asyncio.sleep(600)
        for caller, seconds in [("other", 2), ("once", 1), ("other", 1)]:
            await begun(queue, caller, seconds, order)
        await asyncio.sleep(10)
        return order

    assert run_simulated(scene()) == ["other", "once", "other"]


def test_a_full_queue_refuses_the_flooders_newest_and_its_newcomers_but_no_light_caller() -> None:
    async def scene() -> None:
        queue, before = queue_of(1, waiting=3), value("rheostat_queue_refused_total", cause="full")
        running = await begun(queue, "flood", 1)
        flood = [await begun(queue, "flood", 1) for _ in range(3)]
        with pytest.raises(QueueFull, match="3 requests wait, 3 of them this caller's") as caught:
            await served(queue, "flood", 1)
        assert (caught.value.status, caught.value.type, caught.value.code) == (503, "overloaded_error", "queue_full")
        assert caught.value.headers == {"Retry-After": "1"}
        light = await begun(queue, "light", 1)
        await asyncio.sleep(0)
        assert isinstance(flood[2].exception(), QueueFull)
        assert (await light, queue.running) == (1, 1)
        await asyncio.gather(running, *flood[:2])
        assert value("rheostat_queue_refused_total", cause="full") == before + 2

    run_simulated(scene())


def test_a_turn_that_does_not_come_in_time_is_refused_and_frees_its_place() -> None:
    async def scene() -> None:
        queue = queue_of(1, deadline=5)
        running = await begun(queue, "a", 6)
        with pytest.raises(QueueTimeout, match="within the queue's deadline of 5 s") as caught:
            await served(queue, "b", 1)
        assert (now(), queue.waiting, caught.value.code) == (5, 0, "queue_timeout")
        assert caught.value.headers == {"Retry-After": "1"}
        await running

    run_simulated(scene())


def test_cancelling_frees_the_place_of_one_that_waits_and_the_slot_of_one_that_runs() -> None:
    async def scene() -> None:
        queue = queue_of(1)
        running, second, third = [await begun(queue, caller, 9) for caller in "abc"]
        second.cancel()
        await asyncio.sleep(0)
        assert queue.waiting == 1
        running.cancel()
        assert (await third, now(), queue.running) == (0, 9, 0)

    run_simulated(scene())


def test_a_slot_given_to_one_that_is_cancelled_at_that_moment_goes_on_to_the_next() -> None:
    async def scene() -> None:
        queue = queue_of(1)
        running, second, third = [await begun(queue, caller, 1) for caller in "abc"]
        running.add_done_callback(lambda _: second.cancel())
        assert await third == 1
        assert second.cancelled()

    run_simulated(scene())


def test_a_thousand_cancelled_at_random_moments_leave_nothing() -> None:
    async def scene() -> None:
        chance, queue = random.Random(7), queue_of(4, waiting=2000)
        tasks = [await begun(queue, f"caller {i % 20}", chance.random()) for i in range(1000)]
        for task in chance.sample(tasks, 1000):
            if chance.random() < 0.05:
                await asyncio.sleep(chance.random() / 4)
            task.cancel()
        await asyncio.wait(tasks)
        assert (queue.running, queue.waiting) == (0, 0)
        await asyncio.sleep(1800)
        assert queue.callers == 0
        assert await served(queue, "a", 1) == 0

    run_simulated(scene())


Step = tuple[int, float, float, float | None]
"""The caller, the pause before it comes, the seconds that it runs, and those after which it is cancelled."""


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 4), st.sampled_from([0.0, 0.5, 3]), st.floats(0, 4), st.none() | st.sampled_from([0.0, 1, 2])
        ),
        max_size=40,
    ),
    running=st.integers(1, 3),
    waiting=st.integers(0, 5),
)
def test_whatever_comes_no_more_run_than_may_and_everyone_ends_one_way(
    steps: list[Step], running: int, waiting: int
) -> None:
    async def scene() -> None:
        queue = FairQueue(running=running, waiting=waiting, deadline=3, clock=now)
        inside, most, ends = Counter[str](), list[int](), Counter[str]()

        async def one(caller: str, seconds: float) -> None:
            try:
                async with queue.turn(caller):
                    inside["now"] += 1
                    most.append(inside["now"])
                    try:
                        await asyncio.sleep(seconds)
                    finally:
                        inside["now"] -= 1
                ends["served"] += 1
            except (QueueFull, QueueTimeout) as exc:
                ends[type(exc).__name__] += 1

        tasks = []
        for caller, pause, seconds, cancelled_after in steps:
            await asyncio.sleep(pause)
            task = asyncio.ensure_future(one(str(caller), seconds))
            tasks.append(task)
            if cancelled_after is not None:
                asyncio.get_running_loop().call_later(cancelled_after, task.cancel)
            assert queue.waiting <= waiting
            assert queue.waiting == 0 or queue.running == running
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert ends.total() + sum(task.cancelled() for task in tasks) == len(steps)
        assert max(most, default=0) <= running
        assert (queue.running, queue.waiting) == (0, 0)
        await asyncio.sleep(1800)
        assert queue.callers == 0

    run_simulated(scene())


async def test_without_a_queue_everyones_turn_is_now() -> None:
    async with NoQueue().turn("a") as turn:
        assert turn == Turn(waited=0, urgent=False)


@pytest.mark.parametrize("wrong", [{"running": 0}, {"waiting": -1}, {"deadline": -1.0}, {"half_life": 0.0}])
def test_a_queue_that_could_serve_nobody_is_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is .*; it must be at least"):
        FairQueue(**{"running": 1, "waiting": 1, "deadline": 1.0, **wrong})  # type: ignore[arg-type]


def test_a_reserved_slot_is_kept_for_a_caller_that_used_little_and_takes_none_from_the_others() -> None:
    async def scene() -> None:
        queue = FairQueue(running=3, waiting=100, deadline=1000, reserved=1, clock=now)
        flood = [await begun(queue, "flood", 4) for _ in range(6)]
        assert (queue.running, queue.waiting) == (2, 4)
        await asyncio.sleep(1)
        light = await begun(queue, "light", 4)
        other = await begun(queue, "other", 1)
        assert (queue.running, queue.waiting) == (3, 5)
        assert await light == 0
        await asyncio.sleep(0)
        assert queue.running == 2
        assert await other == 3
        assert [await task for task in flood] == [0, 0, 4, 5, 8, 9]
        assert (queue.running, queue.waiting) == (0, 0)

    run_simulated(scene())


def test_one_that_uses_its_share_has_no_reserved_slot() -> None:
    async def scene() -> None:
        queue = FairQueue(running=2, waiting=100, deadline=1000, reserved=1, clock=now)
        first = await begun(queue, "flood", 4)
        second = await begun(queue, "flood", 1)
        assert (queue.running, queue.waiting) == (1, 1)
        assert [await first, await second] == [0, 4]

    run_simulated(scene())


@pytest.mark.parametrize(("of_a_share", "urgent"), [(0.0, True), (LIGHT - 0.01, True), (LIGHT + 0.01, False)])
def test_a_request_is_urgent_if_there_is_no_room_and_its_caller_used_clearly_less_than_the_others(
    of_a_share: float, *, urgent: bool
) -> None:
    async def scene() -> None:
        queue = FairQueue(running=2, waiting=100, deadline=1000, reserved=1, half_life=1e6, clock=now)
        for caller, seconds in [("flood", 1000.0), ("light", 1000 * of_a_share / (2 - of_a_share))]:
            await served(queue, caller, seconds)  # the share is half of what both used
        flood = await begun(queue, "flood", 1e-6)
        async with queue.turn("light") as turn:
            assert turn.urgent is urgent
        await flood

    run_simulated(scene())


def test_while_there_is_room_nothing_is_urgent() -> None:
    async def scene() -> None:
        queue = FairQueue(running=2, waiting=100, deadline=1000, clock=now)
        await begun(queue, "flood", 1000)
        async with queue.turn("light") as turn:
            assert turn == Turn(waited=0, urgent=False)

    run_simulated(scene())


def test_not_every_slot_can_be_reserved() -> None:
    with pytest.raises(ValueError, match="reserved is 2; it must be below running, 2"):
        FairQueue(running=2, waiting=1, deadline=1, reserved=2)
