"""Two nodes, a replica on each: what holds while all is well, and what is lost when a replica or a node is killed."""

import asyncio
import os
import signal
import time

import httpx
import pytest
from openai import OpenAI

from tests.ray.conftest import AT_ONCE, Two
from tests.ray.load import ASKED, Load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CALLERS = 2 * AT_ONCE
SEEDED = {**ASKED, "seed": 7, "temperature": 1.0}


def proxies(two: Two) -> list[str]:
    return [two.url, f"http://127.0.0.1:{two.second.http}"]


def test_a_replica_runs_on_each_node(two: Two) -> None:
    assert len({replica.node for replica in two.cluster.replicas()}) == 2
    assert [httpx.get(f"{url}/-/healthz").status_code for url in proxies(two)] == [200, 200]


def test_the_adapter_answers_the_same_on_each_replica(two: Two) -> None:
    answers = []
    for url in proxies(two) * 4:
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            answers.append(client.chat.completions.create(**SEEDED))
    assert {answer.model.split("@")[0] for answer in answers} != {"demo"}
    assert len({answer.model for answer in answers}) == 1
    assert len({answer.choices[0].message.content for answer in answers}) == 1


def test_a_request_keeps_its_id(two: Two) -> None:
    response = httpx.get(f"{two.url}/v1/models", headers={"X-Request-ID": "fern-1"})
    assert response.headers.get_list("X-Request-ID") == ["fern-1"]
    assert len(httpx.get(f"{two.url}/v1/models").headers.get_list("X-Request-ID")) == 1


def test_an_error_has_the_shape_that_it_has_everywhere(two: Two) -> None:
    response = httpx.post(f"{two.url}/v1/chat/completions", json={"model": "nobody", "messages": []})
    assert response.status_code in {400, 404}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_stream_comes_event_by_event(two: Two) -> None:
    with OpenAI(base_url=f"{two.url}/v1", api_key="none", max_retries=0) as client:
        began = time.monotonic()
        times = [time.monotonic() - began for _ in client.chat.completions.create(**ASKED, stream=True)]
    assert len(times) > 10
    assert times[0] < times[-1] / 2


def test_each_node_exports_the_figures_of_its_replica(two: Two) -> None:
    body = {
        "model": ASKED["model"],
        "messages": ASKED["messages"],
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": True,
    }
    with httpx.stream("POST", f"{two.url}/v1/chat/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    for url in proxies(two):
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            client.chat.completions.create(**ASKED)
    deadline = time.monotonic() + 60
    while not (counted := outcomes(two)) >= {"answered", "cancelled"}:
        assert time.monotonic() < deadline, counted
        time.sleep(0.5)


def outcomes(two: Two) -> set[str]:
    """How requests ended, once both nodes have told of replicas, and each of its own."""
    of_head, of_second = two.head.figures(), two.second.figures()
    replicas = [{replica for replica, _, _ in told} for told in (of_head, of_second)]
    if not all(replicas):
        return set()
    assert not replicas[0] & replicas[1]
    return {outcome for _, _, outcome in (*of_head, *of_second)}


async def test_replicas_come_with_requests_and_go_without_and_nothing_is_lost(two: Two) -> None:
    two.scale(1, 2)
    await asyncio.to_thread(two.cluster.wait_for, 1)
    load = Load(two.url)
    async with load.running(CALLERS):
        await asyncio.to_thread(two.cluster.wait_for, 2)
    one = Load(two.url)
    async with one.running(1):
        await asyncio.to_thread(two.cluster.wait_for, 1)
    print(f"\nfrom 1 to 2: {len(load.outcomes)} requests; from 2 to 1: {len(one.outcomes)}")
    assert load.outcomes
    assert one.outcomes
    assert [*load.failed, *load.half, *one.failed, *one.half] == []


async def test_a_killed_replica_loses_the_requests_in_flight_there_alone(two: Two) -> None:
    two.scale(2, 2)
    before = await asyncio.to_thread(two.cluster.wait_for, 2)
    load = Load(two.url)
    async with load.running(CALLERS):
        await asyncio.sleep(3)
        killed = time.monotonic()
        os.kill(before[0].pid, signal.SIGKILL)
        await until_replaced(two, before[0].id)
        whole = time.monotonic()
        await asyncio.sleep(3)
    report("replica", load, killed, whole)
    assert_lost_in_flight_alone(load, killed)


async def test_a_killed_node_loses_the_requests_in_flight_there_alone(two: Two) -> None:
    two.scale(2, 2)
    before = await asyncio.to_thread(two.cluster.wait_for, 2)
    heads = [replica for replica in before if replica.pid in two.head.pids()]
    [lost] = [replica for replica in before if replica not in heads]
    load = Load(two.url)
    async with load.running(CALLERS):
        await asyncio.sleep(3)
        killed = time.monotonic()
        two.second.kill()
        two.second = two.cluster.start_worker()
        await until_replaced(two, lost.id)
        whole = time.monotonic()
        await asyncio.sleep(3)
    report("node", load, killed, whole)
    assert_lost_in_flight_alone(load, killed)


async def until_replaced(two: Two, lost: str) -> None:
    """Two replicas answer, and the lost one is none of them."""
    deadline = time.monotonic() + 120
    while True:
        ids = {replica.id for replica in await asyncio.to_thread(two.cluster.replicas)}
        if len(ids) == 2 and lost not in ids:
            return
        assert time.monotonic() < deadline, two.cluster.application()
        await asyncio.sleep(0.2)


def assert_lost_in_flight_alone(load: Load, killed: float) -> None:
    """Whoever asked after the kill was answered; whoever had asked before it got a whole answer or an error."""
    assert load.half == []
    assert [each for each in load.failed if each.began > killed] == []
    assert 0 < len(load.failed) <= AT_ONCE
    assert [each for each in load.outcomes if each.began > killed]


def report(what: str, load: Load, killed: float, whole: float) -> None:
    """Figures for docs/ray.md, shown by `pytest -s`."""
    answered = [each.ended - each.began for each in load.outcomes if not each.failure]
    after = [each.ended - each.began for each in load.outcomes if each.ended > killed]
    print(
        f"\n{what} killed: {len(load.outcomes)} requests, {len(answered)} answered, {len(load.failed)} failed, "
        f"{len(load.half)} half; whole again after {whole - killed:.1f} s; longest answer {max(answered):.1f} s, "
        f"longest after the kill {max(after):.1f} s"
    )
    for each in load.failed:
        print(f"  {'stream' if each.streamed else 'whole'}, {each.ended - killed:+.2f} s: {each.failure}")
