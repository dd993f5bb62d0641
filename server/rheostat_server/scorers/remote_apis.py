"""The four APIs of judges on other servers: what a request for some dialogues holds, and the scores in its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from pydantic import BaseModel, FiniteFloat, ValidationError

from rheostat_server.contract.dials import DialName
from rheostat_server.engines.remote import Upstream
from rheostat_server.scorers import Dialogue, Scores
from rheostat_server.scorers.guard_chat import guard_body, guard_level
from rheostat_server.scorers.guard_formats import Criterion
from rheostat_server.scorers.logprobs import NotAnAnswer
from rheostat_server.scorers.scales import Linear
from rheostat_server.scorers.spec.remote import (
    AnyRemoteSpec,
    PooledSpec,
    RemoteChatSpec,
    RemoteClassifySpec,
    RemoteGuardSpec,
    RemoteScoreSpec,
)
from rheostat_server.scorers.yes_no import level_of, question_body


@dataclass(frozen=True, slots=True)
class Api:
    """How a server is asked about `most` dialogues at once: where, with which body, and how its JSON is read.

    `read` gives one Scores for each dialogue of the request, in their order, and raises `NotAnAnswer`. They tell of
    `dials`. A dialogue that is not `judgeable` is not sent.
    """

    url: str
    dials: tuple[DialName, ...]
    most: int
    body: Callable[[Sequence[Dialogue]], dict[str, Any]]
    read: Callable[[Any, int], list[Scores]]
    judgeable: Callable[[Dialogue], bool] = attrgetter("is_answered")


def apis_of(spec: AnyRemoteSpec, server: Upstream) -> list[Api]:
    """Every request that one dialogue needs."""
    match spec:
        case RemoteClassifySpec():
            return [_classify(spec, server)]
        case RemoteScoreSpec():
            return [_score(spec, server)]
        case RemoteChatSpec():
            return [_chat(spec, server, dial) for dial in spec.judged]
        case RemoteGuardSpec():
            return [_guard(spec, server, criterion) for criterion in spec.guard_format().criteria]


def level_on(spec: PooledSpec, value: float) -> float:
    """The level of a score.

    Raises:
        NotAnAnswer: it should be a probability and is none.
    """
    if isinstance(spec.scale, Linear):
        value = spec.scale.level(value)
    elif not 0 <= value <= 1:
        raise NotAnAnswer(f"it told the score {value:g}, which is no probability; set activation, or a scale")
    return 1 - value if spec.invert else value


class _Item(BaseModel):
    index: int


class _Classified(_Item):
    probs: list[FiniteFloat]
    label: str | None = None


class _Scored(_Item):
    score: FiniteFloat


class _ClassifyAnswer(BaseModel):
    data: list[_Classified]


class _ScoreAnswer(BaseModel):
    data: list[_Scored]


Read = TypeVar("Read", bound=BaseModel)
Item = TypeVar("Item", bound=_Item)


def _classify(spec: RemoteClassifySpec, server: Upstream) -> Api:
    """vLLM takes one conversation in a request, and many texts."""

    def conversation(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        (dialogue,) = dialogues
        return {**spec.options, "messages": [*dialogue.messages, {"role": "assistant", "content": dialogue.answer}]}

    def answers(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        return {**spec.options, "input": [dialogue.answer for dialogue in dialogues]}

    def read(answer: Any, count: int) -> list[Scores]:
        return [_class_scores(item, spec) for item in _in_order(_parsed(_ClassifyAnswer, answer).data, count)]

    url = _beside_v1(server, "classify")
    most, body = (1, conversation) if spec.reads == "messages" else (spec.max_batch, answers)
    return Api(url, spec.judged, most, body, read)


def _score(spec: RemoteScoreSpec, server: Upstream) -> Api:
    def pairs(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        questions = [dialogue.question for dialogue in dialogues]
        return {**spec.options, "text_1": questions, "text_2": [dialogue.answer for dialogue in dialogues]}

    def read(answer: Any, count: int) -> list[Scores]:
        items = _in_order(_parsed(_ScoreAnswer, answer).data, count)
        return [Scores(**{spec.dial: level_on(spec, item.score)}) for item in items]

    return Api(_beside_v1(server, "score"), spec.judged, spec.max_batch, pairs, read)


def _chat(spec: RemoteChatSpec, server: Upstream, dial: DialName) -> Api:
    question = spec.asked[dial]

    def body(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        (dialogue,) = dialogues
        return question_body(dialogue, question, model=spec.model, options=spec.options)

    def read(answer: Any, _: int) -> list[Scores]:
        return [Scores(**{dial: level_of(answer, question, least_mass=spec.least_mass)})]

    return Api(f"{server.api}/chat/completions", (dial,), 1, body, read)


def _guard(spec: RemoteGuardSpec, server: Upstream, criterion: Criterion) -> Api:
    format = spec.guard_format()

    def judgeable(dialogue: Dialogue) -> bool:
        return format.turns(dialogue) is not None

    def body(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
        (dialogue,) = dialogues
        return guard_body(format.turns(dialogue) or [], criterion, format=format, model=spec.model)

    def read(answer: Any, _: int) -> list[Scores]:
        return [Scores(safety=guard_level(answer, format=format, least_mass=spec.least_mass))]

    return Api(f"{server.api}/chat/completions", spec.judged, 1, body, read, judgeable)


def _beside_v1(server: Upstream, route: str) -> str:
    """vLLM has its pooling routes beside `/v1`, not under it."""
    return f"{server.api.removesuffix('/v1')}/{route}"


def _parsed(shape: type[Read], answer: Any) -> Read:
    try:
        return shape.model_validate(answer)
    except ValidationError as exc:
        place = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"])
        raise NotAnAnswer(f"its answer cannot be read; {place or 'all of it'} is not as vLLM writes it") from None


def _in_order(items: Sequence[Item], count: int) -> list[Item]:
    found = {item.index: item for item in items}
    if len(items) != count or found.keys() != set(range(count)):
        raise NotAnAnswer(f"it was asked for {count} judgements and told {len(items)}, or numbered them wrongly")
    return [found[index] for index in range(count)]


def _class_scores(item: _Classified, spec: RemoteClassifySpec) -> Scores:
    _check_classes(item, spec)
    return Scores(**{dial: level_on(spec, item.probs[place]) for dial, place in spec.places.items()})


def _check_classes(item: _Classified, spec: RemoteClassifySpec) -> None:
    """That the classes are the spec's, as far as an answer tells: how many there are, and the likeliest one's name."""
    needed = max(spec.places.values()) + 1
    if len(item.probs) < needed:
        raise NotAnAnswer(f"its model has {len(item.probs)} classes, and labels needs {needed}")
    if spec.classes is None:
        return
    likeliest = item.probs.index(max(item.probs))
    if len(item.probs) != len(spec.classes) or item.label != spec.classes[likeliest]:
        raise NotAnAnswer(f"its model's classes are not {', '.join(spec.classes)}, as classes says")
