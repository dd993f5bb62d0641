"""Which blends are loaded: each once, none while it is used taken away, and nothing half done where loading fails."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from rheostat_server.blending.rack import Rack
from rheostat_server.blending.store import BlendPoint
from rheostat_server.contract.dials import Dials
from rheostat_server.engines import Part
from rheostat_server.errors import EngineFailed, EngineUnavailable, NoBlendFree


@dataclass
class Slow:
    """An engine that keeps what it was told, in the order in which it was done, and never holds more than its room."""

    room: int
    seconds: float = 0.001
    fails: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    has: set[str] = field(default_factory=set)
    at_once: int = 0

    async def load_blend(self, address: str, parts: Sequence[Part]) -> None:
        await self._told(f"+{address}")
        self.has.add(address)
        assert len(self.has) <= self.room, "more are loaded than there is room for"

    async def unload_blend(self, address: str) -> None:
        await self._told(f"-{address}")
        self.has.discard(address)

    async def _told(self, what: str) -> None:
        self.at_once += 1
        assert self.at_once == 1, "the engine is told two things at once"
        try:
            await asyncio.sleep(600 if what in self.stuck else self.seconds)
        finally:
            self.at_once -= 1
        self.told.append(what)
        if what in self.fails:
            raise EngineFailed(f"{what} fails")


def point(address: str) -> BlendPoint:
    dials = Dials(safety=1, helpfulness=1)
    return BlendPoint(dials, address, {"a": 1.0}, (Part("a@1", Path("a"), 1.0),))


def racked(room: int, *, patience: float = 5, longest: float = 5) -> tuple[Slow, Rack]:
    engine = Slow(room)
    return engine, Rack(engine, room, patience, longest)


async def use(rack: Rack, address: str, seconds: float = 0) -> None:
    async with rack.held(point(address)):
        await asyncio.sleep(seconds)


async def test_requests_at_once_load_a_blend_once() -> None:
    engine, rack = racked(2)
    await asyncio.gather(*(use(rack, "a") for _ in range(20)))
    await use(rack, "a")
    assert engine.told == ["+a"]


async def test_the_longest_unused_one_makes_room() -> None:
    engine, rack = racked(2)
    for address in ("a", "b", "a", "c", "b"):
        await use(rack, address)
    assert engine.told == ["+a", "+b", "-b", "+c", "-a", "+b"]
    assert rack.loaded == ["c", "b"]


async def test_one_that_is_used_stays_however_long_it_was_not_asked_for() -> None:
    engine, rack = racked(2)
    async with rack.held(point("a")):
        for address in ("b", "c", "d"):
            await use(rack, address)
        assert "-a" not in engine.told
    await use(rack, "e")
    assert engine.told == ["+a", "+b", "-b", "+c", "-c", "+d", "-a", "+e"]


async def test_whoever_finds_all_in_use_waits_for_the_first_that_is_free() -> None:
    engine, rack = racked(1)
    using = asyncio.create_task(use(rack, "a", 0.05))
    await asyncio.sleep(0.01)
    await use(rack, "b")
    assert using.done()
    assert engine.told == ["+a", "-a", "+b"]


async def test_nobody_waits_for_ever() -> None:
    engine, rack = racked(1, patience=0.02)
    async with rack.held(point("a")):
        with pytest.raises(NoBlendFree, match="all 1 blends") as refused:
            await use(rack, "b")
        assert refused.value.headers == {"Retry-After": "1"}
        await use(rack, "a")
    await use(rack, "b")
    assert engine.has == {"b"}


async def test_a_blend_that_cannot_be_loaded_is_as_if_nobody_had_asked() -> None:
    engine, rack = racked(1)
    engine.fails = {"+a"}
    outcomes = await asyncio.gather(*(use(rack, "a") for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineFailed] * 3
    assert rack.loaded == []
    engine.fails.clear()
    await use(rack, "a")
    assert (engine.told, rack.loaded) == (["+a", "+a"], ["a"])


async def test_whoever_waits_for_room_gets_that_of_a_blend_that_cannot_be_loaded() -> None:
    engine, rack = racked(1)
    engine.fails = {"+a"}
    failing, waiting = asyncio.create_task(use(rack, "a")), asyncio.create_task(use(rack, "b"))
    outcomes = await asyncio.gather(failing, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineFailed, type(None)]
    assert engine.has == {"b"}


async def test_what_does_not_leave_the_engine_leaves_it_before_the_next_is_loaded() -> None:
    engine, rack = racked(1)
    await use(rack, "a")
    engine.fails = {"-a"}
    with pytest.raises(EngineFailed):
        await use(rack, "b")
    engine.fails.clear()
    await use(rack, "c")
    assert engine.told == ["+a", "-a", "-a", "+c"]
    assert engine.has == {"c"}


async def test_a_load_that_sticks_is_given_up_and_hangs_no_other_blend() -> None:
    engine, rack = racked(2, longest=0.2)
    engine.stuck = {"+a"}
    with pytest.raises(EngineUnavailable, match=r"the blend a within 0\.2 s"):
        await use(rack, "a")
    await asyncio.sleep(0.01)
    await use(rack, "b")
    assert engine.told == ["-a", "+b"], "what may be loaded after all is unloaded first"
    engine.stuck.clear()
    await use(rack, "a")
    assert engine.has == {"a", "b"}


async def test_an_unloading_that_sticks_is_given_up_and_done_before_the_next_load() -> None:
    engine, rack = racked(1, longest=0.2)
    await use(rack, "a")
    engine.stuck = {"-a"}
    with pytest.raises(EngineUnavailable):
        await use(rack, "b")
    engine.stuck.clear()
    await asyncio.sleep(0.01)
    await use(rack, "c")
    assert engine.told == ["+a", "-a", "+c"]


async def test_whoever_waits_for_its_turn_behind_one_that_sticks_waits_no_longer_than_a_load_may_take() -> None:
    engine, rack = racked(20, longest=0.1)
    addresses = "abcdefghijklmnopqrst"
    engine.stuck = {f"{what}{address}" for what in "+-" for address in addresses}
    async with asyncio.timeout(1):
        outcomes = await asyncio.gather(*(use(rack, address) for address in addresses), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineUnavailable] * 20
    await rack.close()


async def test_only_what_is_loaded_is_counted_as_loaded() -> None:
    engine, rack = racked(1)
    await use(rack, "a")
    assert REGISTRY.get_sample_value("rheostat_blends_loaded") == 1
    engine.seconds = 0.1
    using = asyncio.create_task(use(rack, "b"))
    await asyncio.sleep(0.005)
    assert REGISTRY.get_sample_value("rheostat_blends_loaded") == 0
    await using
    assert REGISTRY.get_sample_value("rheostat_blends_loaded") == 1


async def test_one_that_did_not_leave_can_be_asked_for_again() -> None:
    engine, rack = racked(1)
    await use(rack, "a")
    engine.fails = {"-a"}
    with pytest.raises(EngineFailed):
        await use(rack, "b")
    engine.fails.clear()
    await use(rack, "a")
    assert (engine.has, rack.loaded) == ({"a"}, ["a"])


async def test_a_caller_that_hangs_up_while_it_is_loaded_spoils_it_for_nobody() -> None:
    engine, rack = racked(1)
    leaving, staying = asyncio.create_task(use(rack, "a")), asyncio.create_task(use(rack, "a"))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    await use(rack, "b")
    assert leaving.cancelled()
    assert engine.told == ["+a", "-a", "+b"]


async def test_a_caller_that_hangs_up_while_it_waits_takes_no_place() -> None:
    engine, rack = racked(1)
    async with rack.held(point("a")):
        waiting = asyncio.create_task(use(rack, "b"))
        await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await use(rack, "c")
    assert engine.told == ["+a", "-a", "+c"]


async def test_a_stream_holds_its_blend_until_it_is_closed() -> None:
    engine, rack = racked(1, patience=0.02)

    async def stream() -> AsyncGenerator[int, None]:
        async with rack.held(point("a")):
            for event in range(9):
                yield event

    async with aclosing(stream()) as events:
        assert await anext(events) == 0
        with pytest.raises(NoBlendFree):
            await use(rack, "b")
    await use(rack, "b")
    assert engine.has == {"b"}


async def test_many_requests_for_many_blends_all_come_through() -> None:
    engine, rack = racked(3)
    await asyncio.gather(*(use(rack, "abcdefg"[n * n % 7], 0.001 * (n % 3)) for n in range(60)))
    assert len(engine.has) == len(rack.loaded) == 3
    assert engine.has == set(rack.loaded)


async def test_the_base_model_itself_takes_no_place() -> None:
    engine, rack = racked(1)
    async with rack.held(BlendPoint(Dials(safety=0, helpfulness=0), "nothing@1", {"a": 0.0}, ())):
        assert rack.loaded == engine.told == []


async def test_loads_and_evictions_are_counted() -> None:
    def counted() -> dict[str, float]:
        return {name: REGISTRY.get_sample_value(f"rheostat_blend_{name}") or 0 for name in (
            "load_seconds_count", "evictions_total", "refused_total")}  # fmt: skip

    def loads(outcome: str) -> float:
        return REGISTRY.get_sample_value("rheostat_blend_loads_total", {"outcome": outcome}) or 0

    before, loaded, failed = counted(), loads("loaded"), loads("failed")
    engine, rack = racked(1, patience=0.01)
    engine.fails = {"+c"}
    await use(rack, "a")
    async with rack.held(point("b")):
        with pytest.raises(NoBlendFree):
            await use(rack, "a")
    with pytest.raises(EngineFailed):
        await use(rack, "c")
    assert {name: value - before[name] for name, value in counted().items()} == {
        "load_seconds_count": 2, "evictions_total": 2, "refused_total": 1,
    }  # fmt: skip
    assert (loads("loaded") - loaded, loads("failed") - failed) == (2, 1)
    assert REGISTRY.get_sample_value("rheostat_blends_loaded") == 0


async def test_closing_waits_for_no_engine_that_does_not_answer() -> None:
    engine, rack = racked(2)
    await use(rack, "b")
    engine.seconds = 600
    using = asyncio.create_task(use(rack, "a"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await rack.close()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert engine.told == ["+b"]
