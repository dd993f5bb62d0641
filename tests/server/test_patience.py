"""How long one call to send may take, however many there are and however long the source takes between them."""

import asyncio

import pytest
from starlette.types import Message

from rheostat_server.api.patience import patient
from tests.limits.simulated import now, run_simulated

EVENT: Message = {"type": "http.response.body"}


def test_a_call_that_takes_too_long_is_broken_off_at_its_own_time() -> None:
    async def send(message: Message) -> None:
        await asyncio.sleep(message["takes"])

    async def all_sent() -> None:
        async with patient(send, 10) as patiently:
            for _ in range(7):
                await patiently({**EVENT, "takes": 9})
            await asyncio.sleep(100)
            await patiently({**EVENT, "takes": 11})

    async def scene() -> None:
        with pytest.raises(TimeoutError):
            await all_sent()
        assert now() == pytest.approx(7 * 9 + 100 + 10)

    run_simulated(scene())


def test_calls_that_are_quick_may_go_on_for_ever() -> None:
    async def send(message: Message) -> None:
        return

    async def scene() -> None:
        async with patient(send, 10) as patiently:
            for _ in range(100):
                await asyncio.sleep(15)
                await patiently(EVENT)
        assert now() == pytest.approx(100 * 15)

    run_simulated(scene())


def test_what_fails_within_is_told_as_it_is() -> None:
    async def send(message: Message) -> None:
        raise OSError("gone")

    async def sent() -> None:
        async with patient(send, 10) as patiently:
            await patiently(EVENT)

    async def scene() -> None:
        with pytest.raises(OSError, match="gone"):
            await sent()

    run_simulated(scene())
