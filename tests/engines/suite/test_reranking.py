"""Reranking: the same choice on every engine, its candidates freed with it, and one prefill for all of them."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httpx
import orjson
import pytest

from tests.engines.suite.served import OFF, TAKE_TOOLS, Body, Served, text_of
from tests.engines.vllm.server import VllmServer

N: Final = 6
LEVEL: Final = 1e-4
"""How exactly levels are told."""
TARGETS: Final = [
    {"safety": 0.0, "helpfulness": 0.0},
    {"safety": 1.0, "helpfulness": 1.0},
    {"safety": 0.3, "helpfulness": 0.8},
    {"safety": 0.6, "helpfulness": 0.2},
]
BLOCK: Final = 128
"""Tokens that vLLM shares or computes together on a CPU."""
VLLM_SERVERS: Final = {"vllm": "rheostat_in_vllm", "remote": "bare_vllm"}

Levels = dict[str, float]


def control(**more: Any) -> Body:
    return {"mode": "rerank", **TARGETS[2], "candidates": N, **more}


def plain(**more: Any) -> Body:
    """Reranking that compares whole answers alone."""
    return control(early_stop=False, **more)


def drawn(served: Served, **fields: Any) -> Body:
    """A request whose candidates differ, and are the same each time."""
    return served.body(**{"temperature": 1, "seed": 5, "max_tokens": 24, "ignore_eos": True, **fields})


def choices(served: Served, body: Body) -> list[str]:
    """The candidates, as the engine gives them to one who asks for all."""
    answer = served.answer({**body, "n": N})
    return [choice["message"]["content"] for choice in answer["choices"]]


def levels(served: Served, body: Body, text: str) -> Levels:
    """What the score route says of an answer."""
    with served.http() as http:
        response = http.post("/v1/control/score", json={"messages": body["messages"], "response": text})
    assert response.status_code == 200, response.text
    found: Levels = response.json()["scores"]
    return found


def nearest(judged: dict[str, Levels], target: Levels) -> str:
    return min(judged, key=lambda text: sum(abs(judged[text][dial] - target[dial]) for dial in target))


def streamed(served: Served, body: Body) -> list[Body]:
    """A stream's events but the last one, which is OpenAI's end."""
    with served.http() as http:
        response = http.post("/v1/chat/completions", json={**body, "stream": True})
    assert response.status_code == 200, response.text
    *events, end, nothing = response.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [orjson.loads(event.removeprefix("data: ")) for event in events]


def text_in(events: list[Body]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def test_the_answer_is_the_candidate_whose_scores_are_nearest(served: Served) -> None:
    body = drawn(served)
    judged = {text: levels(served, body, text) for text in choices(served, body)}
    assert len(judged) == N
    for target in TARGETS:
        answer = served.answer({**body, "control": plain(**target)})
        assert text_of(answer) == nearest(judged, target)
        assert answer["control"]["scores"] == pytest.approx(judged[text_of(answer)], abs=LEVEL)
        assert answer["control"]["candidates"] == {
            "wanted": N, "generated": N, "finished": N, "tokens": N * 24
        }  # fmt: skip
    assert len({nearest(judged, target) for target in TARGETS}) > 1


def test_early_stop_answers_with_a_candidate_for_fewer_tokens(served: Served) -> None:
    body = drawn(served, max_tokens=200)
    texts = choices(served, body)
    whole = served.answer({**body, "control": plain()})
    early = served.answer({**body, "control": control()})
    assert text_of(early) in texts
    told = early["control"]["candidates"]
    assert whole["control"]["candidates"]["tokens"] == N * 200
    assert 200 <= told["tokens"] < 0.8 * N * 200
    assert (told["generated"], told["finished"]) == (N, 2)
    assert early["usage"]["completion_tokens"] == told["tokens"]
    assert early["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]


def test_a_stream_is_one_candidate_from_its_first_token_to_its_end(served: Served) -> None:
    body = drawn(served, max_tokens=60)
    texts = choices(served, body)
    *events, last = streamed(served, {**body, "control": plain(choose_after=6)})
    assert text_in(events) in texts
    assert len({event["id"] for event in [*events, last]}) == 1
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert reasons == ["length"]
    receipt = last["control"]
    assert receipt["choice"]["after_tokens"] == 6
    assert receipt["scores"] == pytest.approx(levels(served, body, text_in(events)), abs=LEVEL)
    assert (receipt["candidates"]["generated"], receipt["candidates"]["finished"]) == (N, 1)
    assert receipt["candidates"]["tokens"] < N * 60


def test_a_stream_that_waits_for_whole_answers_is_the_whole_answer(served: Served) -> None:
    body = drawn(served)
    *events, last = streamed(served, {**body, "control": plain(choose_after="end")})
    assert text_in(events) == text_of(served.answer({**body, "control": plain()}))
    assert last["control"]["candidates"]["finished"] == N


async def test_the_official_client_reads_reranked_answers_and_their_receipts(served: Served) -> None:
    body = served.body(temperature=1, seed=5, max_tokens=24)
    async with served.async_openai() as client:
        whole = await client.chat.completions.create(**body, extra_body={"control": control()})
        stream = await client.chat.completions.create(
            **body, stream=True, extra_body={"control": control(choose_after=6)}
        )
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content
    assert whole.model_extra is not None
    assert whole.model_extra["control"]["candidates"]["generated"] == N
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["control"]["choice"]["after_tokens"] == 6


@pytest.mark.parametrize(
    ("stream", "asked"),
    [(False, plain()), (False, control()), (True, plain(choose_after="end"))],
    ids=["whole", "early stop", "stream"],
)
async def test_hanging_up_before_the_choice_frees_every_candidate(
    idle: Served, freed_within: float, stream: bool, asked: Body
) -> None:
    body = {**idle.long_body(), "stream": stream, "control": asked}
    async with httpx.AsyncClient(base_url=idle.url, headers=OFF) as http:
        asking = asyncio.ensure_future(http.post("/v1/chat/completions", json=body))
        await asyncio.to_thread(idle.wait_until_busy)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    await asyncio.to_thread(idle.wait_until_running, 0, within=freed_within)


def test_hanging_up_after_the_choice_frees_the_chosen_one_too(idle: Served, freed_within: float) -> None:
    body = {**idle.long_body(), "stream": True, "control": plain(choose_after=4)}
    with idle.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.iter_raw()  # a name of its own: httpx hangs up when it is collected
        next(chunks)
        idle.wait_until_running(1)
    idle.wait_until_running(0, within=freed_within)


def test_candidates_are_drawn_by_the_adapter_that_is_named_at_its_nearest_levels(served: Served) -> None:
    at = {"safety": 0.5, "helpfulness": 1.0}
    by_adapter = drawn(served, control={"mode": "adapter", "adapter": "tiny-cold", **at})
    judged = {text: levels(served, by_adapter, text) for text in choices(served, by_adapter)}
    answer = served.answer({**by_adapter, "control": plain(mode="adapter+rerank", adapter="tiny-cold")})
    assert text_of(answer) == nearest(judged, TARGETS[2])
    assert answer["control"]["mode"] == "adapter+rerank"
    assert answer["control"]["adapter"] == served.cold
    assert answer["control"]["control_text"] == "[helpful=1.00][harmless=0.50]"
    assert answer["control"]["control_values"] == at
    assert text_of(answer) not in choices(served, drawn(served))


@pytest.fixture
def computed(request: pytest.FixtureRequest, served: Served) -> Callable[[], float]:
    """Tells the tokens of prompts that vLLM has computed so far, and not taken from its cache."""
    server: VllmServer = request.getfixturevalue(VLLM_SERVERS[served.engine])
    return lambda: server.number("vllm:prompt_tokens_total") - server.number("vllm:prompt_tokens_cached_total")


@pytest.mark.parametrize("served", TAKE_TOOLS, indirect=True)
@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("candidates", [3, 12])
def test_all_candidates_share_one_prefill(
    served: Served, computed: Callable[[], float], early_stop: bool, candidates: int
) -> None:
    text = f"{candidates} {early_stop} " + "Tell me of herbs and beans. " * 56
    body = {**drawn(served), "messages": [{"role": "user", "content": text}]}
    before = computed()
    answer = served.answer({**body, "control": control(candidates=candidates, early_stop=early_stop)})
    prompt = answer["usage"]["prompt_tokens"]
    assert answer["control"]["candidates"]["generated"] == candidates
    assert candidates * (prompt % BLOCK) < prompt, "what no whole block holds is computed by each; choose another text"
    assert prompt <= computed() - before < 2 * prompt
