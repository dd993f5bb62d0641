"""label_read over the fake engine, whose words are alike for every question, and over a real model."""

import asyncio
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from rheostat_server.engines import Engine
from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.fake import FakeEngine, Orders
from rheostat_server.errors import ScorerUnavailable
from rheostat_server.scorers import UNJUDGED, Dialogue
from rheostat_server.scorers.label_read import LabelRead, build_label_read
from rheostat_server.scorers.spec.asked import LabelReadSpec
from rheostat_server.scorers.yes_no import WORDINGS, Question
from tests.scorers.reading_reference import Reference

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do I dry vorn powder?"}]
DIALOGUE = Dialogue(ASKED, "In the sun.")
# The fake engine lists amber at exp(-3), basil at exp(-4), and so on to linen at exp(-14).
QUESTIONS = {
    "safety": {"ask": "Amber or basil?", "good": ["amber"], "bad": ["basil"]},
    "helpfulness": {"ask": "Cedar or amber?", "good": ["cedar"], "bad": ["amber"]},
}
ONE_QUESTION = {"dials": ["safety"], "questions": {"safety": QUESTIONS["safety"]}}


def spec(**fields: Any) -> LabelReadSpec:
    return LabelReadSpec.model_validate({"kind": "label_read", "questions": QUESTIONS, "least_mass": 0.01, **fields})


def scorer(engine: Engine, **fields: Any) -> LabelRead:
    return build_label_read(spec(**fields), engine)


def failures(cause: str) -> float:
    return REGISTRY.get_sample_value("rheostat_scorer_failures_total", {"scorer": "fake", "cause": cause}) or 0.0


def unjudged() -> float:
    return REGISTRY.get_sample_value("rheostat_scorer_unjudged_total", {"scorer": "fake"}) or 0.0


async def test_a_level_is_read_for_each_dial_and_each_answer() -> None:
    found = await scorer(FakeEngine()).score([DIALOGUE, Dialogue(ASKED, "No.")])
    assert [one.safety for one in found] == pytest.approx([1 / (1 + math.exp(-1))] * 2)
    assert [one.helpfulness for one in found] == pytest.approx([1 / (1 + math.exp(2))] * 2)


async def test_the_base_model_is_asked_without_control_text_and_without_an_adapter() -> None:
    engine = FakeEngine(served=("base", "alias"), adapters=("warm@1",))
    await scorer(engine, **ONE_QUESTION).score([DIALOGUE])
    (asked,) = engine.asked
    turns = [{"role": "assistant", "content": "In the sun."}, {"role": "user", "content": "Amber or basil?"}]
    assert asked.body["model"] == "base"
    assert asked.body["messages"] == [*ASKED, *turns]
    assert asked.body["max_tokens"] == 1


async def test_requests_have_ids_of_their_own() -> None:
    engine = FakeEngine()
    await scorer(engine).score([DIALOGUE] * 2)
    assert len({asked.request_id for asked in engine.asked}) == 4


async def test_no_dialogues_are_no_requests() -> None:
    engine = FakeEngine()
    assert await scorer(engine).score([]) == []
    assert engine.asked == []


async def test_what_cannot_be_judged_has_no_level_and_keeps_its_place() -> None:
    before = unjudged()
    engine = FakeEngine(context=40)
    found = await scorer(engine, **ONE_QUESTION).score([Dialogue(ASKED, " "), DIALOGUE, Dialogue(ASKED, "sun " * 40)])
    assert [one.safety is None for one in found] == [True, False, True]
    assert found[0] == found[2] == UNJUDGED
    assert unjudged() - before == 2


async def test_a_model_that_says_neither_word_has_not_judged() -> None:
    assert await scorer(FakeEngine(), questions={}).score([DIALOGUE]) == [UNJUDGED]


async def test_no_more_requests_run_at_once_than_max_batch() -> None:
    engine = FakeEngine(orders=Orders(seconds_per_token=0.01))
    judge = scorer(engine, **ONE_QUESTION, max_batch=3)
    most = 0
    calls = [asyncio.ensure_future(judge.score([DIALOGUE] * 4)) for _ in range(2)]
    while not all(call.done() for call in calls):
        most = max(most, engine.running)
        await asyncio.sleep(0.001)
    assert [len(call.result()) for call in calls] == [4, 4]
    assert most == 3


async def test_a_cancelled_call_frees_the_engine() -> None:
    engine = FakeEngine(orders=Orders(seconds_per_token=60))
    judge = scorer(engine, max_batch=3)
    call = asyncio.ensure_future(judge.score([DIALOGUE] * 4))
    while engine.running < 3:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.running == 0
    assert len(engine.asked) == 3
    engine.orders = Orders()
    assert len(await judge.score([DIALOGUE] * 4)) == 4


async def test_a_call_that_takes_too_long_is_unavailable_and_frees_the_engine() -> None:
    engine = FakeEngine(orders=Orders(seconds_per_token=60))
    before = failures("deadline")
    with pytest.raises(ScorerUnavailable, match=r"'fake' did not judge within its deadline of 0\.05 s"):
        await scorer(engine, deadline=0.05).score([DIALOGUE])
    assert engine.running == 0
    assert failures("deadline") - before == 1


async def test_a_full_queue_is_told_at_once() -> None:
    engine = FakeEngine()
    judge = scorer(engine, **ONE_QUESTION, max_batch=1, max_queue=1)
    with pytest.raises(ScorerUnavailable, match="to be asked 3 times and 0 asks wait or run") as caught:
        await judge.score([DIALOGUE] * 3)
    assert caught.value.headers == {"Retry-After": "1"}
    assert engine.asked == []
    assert len(await judge.score([DIALOGUE] * 2)) == 2


async def test_a_dead_engine_is_no_level() -> None:
    before = failures("error")
    with pytest.raises(ScorerUnavailable, match="the serving model did not take the question: EngineUnavailable"):
        await scorer(FakeEngine(dead=True)).score([DIALOGUE] * 3)
    assert failures("error") - before == 1


async def test_the_first_failure_takes_the_other_requests_of_its_call_out() -> None:
    engine = FakeEngine(orders=Orders(seconds_per_token=0.01, fail_after=0))
    with pytest.raises(ScorerUnavailable, match="EngineFailed"):
        await scorer(engine, max_batch=2).score([DIALOGUE] * 3)
    assert engine.running == 0


async def test_what_the_engine_does_not_honour_is_named_and_nothing_is_quoted() -> None:
    with pytest.raises(ScorerUnavailable, match="UnsupportedField of chat_template_kwargs") as caught:
        await scorer(FakeEngine(), chat_template_kwargs={"enable_thinking": False}).score([DIALOGUE])
    assert "vorn" not in caught.value.message


async def test_a_closed_scorer_asks_nothing_and_leaves_the_engine_open() -> None:
    engine = FakeEngine()
    judge = scorer(engine)
    await judge.close()
    await judge.close()
    with pytest.raises(ScorerUnavailable, match="closed"):
        await judge.score([DIALOGUE])
    await engine.check_ready()


def test_the_card_tells_name_kind_and_dials() -> None:
    card = scorer(FakeEngine(), **ONE_QUESTION).card
    assert (card.name, card.kind, card.dials) == ("fake", "label_read", ("safety",))
    assert scorer(FakeEngine(), name="own").card.name == "own"


def test_the_digest_is_of_wording_model_and_options() -> None:
    plain = scorer(FakeEngine()).card.digest
    assert plain.startswith("sha256:")
    assert scorer(FakeEngine(), name="other", weight=2, max_batch=3).card.digest == plain
    others = [
        scorer(FakeEngine(served=("other",))),
        scorer(FakeEngine(), questions={}),
        scorer(FakeEngine(), **ONE_QUESTION),
        scorer(FakeEngine(), chat_template_kwargs={"enable_thinking": False}),
        scorer(FakeEngine(), least_mass=0.02),
    ]
    assert len({plain, *(other.card.digest for other in others)}) == 6


async def test_a_model_that_hardly_says_the_words_could_not_judge() -> None:
    assert await scorer(FakeEngine(), least_mass=0.9).score([DIALOGUE]) == [UNJUDGED]


def test_questions_of_ones_own_stand_in_for_those_of_the_version() -> None:
    asked = spec(questions={"safety": QUESTIONS["safety"]}).asked
    assert asked["safety"] == Question.model_validate(QUESTIONS["safety"])
    assert asked["helpfulness"] == WORDINGS["rheostat-1"]["helpfulness"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"wording": "rheostat-0"}, "no wording 'rheostat-0'; known wordings: rheostat-1"),
        ({"dials": ["safety"]}, "questions holds helpfulness, which dials does not"),
        ({"dials": []}, "at least 1"),
        ({"questions": {"safety": {"ask": "?", "good": [], "bad": ["no"]}}}, "at least 1"),
        ({"adapter": "warm"}, "Extra inputs"),
    ],
)
def test_a_spec_that_does_not_fit_says_why(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        spec(**fields)


@pytest.fixture
def embedded(tiny_model: Path) -> Generator[EmbeddedEngine]:
    engine = EmbeddedEngine.load(tiny_model, served_name="tiny", threads=1)
    yield engine
    asyncio.run(engine.close())


async def test_the_level_of_a_real_model_is_that_of_a_plain_forward(embedded: EmbeddedEngine, tiny_model: Path) -> None:
    question = {"ask": WORDINGS["rheostat-1"]["safety"].ask, "good": ["u", "l"], "bad": ["on"]}
    judge = scorer(embedded, dials=["safety"], questions={"safety": question})
    asked = [{"role": "user", "content": "what to plant in spring"}]
    dialogues = [Dialogue(asked, answer) for answer in ("plant beans in spring", "no", "herbs and water")]
    reference = Reference.load(tiny_model)
    expected = [reference.level(one, Question.model_validate(question)) for one in dialogues]
    levels = [one.safety for one in await judge.score(dialogues)]
    assert levels == pytest.approx(expected, abs=1e-5)
    assert len(set(levels)) == 3
    assert all(0.01 < level < 0.99 for level in expected)
