"""The serving model as its own judge: it is asked yes or no about an answer, and one token of its reply is read.

No second model is loaded, and little is computed. A request for a label begins with the very tokens of the candidate's
own conversation, so where the engine keeps a prefix cache, as vLLM does, the KV of prompt and candidate is shared as
far as it fills whole blocks, and what is left is the question. That holds for a candidate that the same model drew
without control text and without an adapter, whose text reads as the tokens that it was drawn in, and for a chat
template that writes a past assistant's turn as the model did: one that takes thoughts out of past turns shares the
prompt alone.
"""

import hashlib
import uuid
from collections.abc import Sequence
from functools import partial

import orjson

from rheostat_server.contract.dials import DialName
from rheostat_server.engines import Engine, EngineRequest
from rheostat_server.errors import ContextOverflow, RheostatError, ScorerUnavailable
from rheostat_server.scorers import Dialogue, ScorerCard, Scores
from rheostat_server.scorers.line import Line
from rheostat_server.scorers.logprobs import NotAnAnswer
from rheostat_server.scorers.spec.asked import LabelReadSpec
from rheostat_server.scorers.yes_no import level_of, question_body


class LabelRead:
    """A Scorer that asks `model_name` of `engine`, the base model; one request for each dialogue and dial.

    An empty answer, and a conversation that leaves no room for the question, cannot be judged.
    """

    def __init__(self, engine: Engine, model_name: str, spec: LabelReadSpec) -> None:
        self._engine = engine
        self._model = model_name
        self._spec = spec
        self._card = ScorerCard(spec.name or model_name, spec.kind, _digest(model_name, spec), spec.judged)
        self._line = Line(self._card, spec.limits, at_once=spec.max_batch)

    @property
    def card(self) -> ScorerCard:
        return self._card

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        asked: list[tuple[int, DialName]] = [
            (place, dial)
            for place, dialogue in enumerate(dialogues)
            for dial in self._card.dials
            if dialogue.is_answered
        ]
        levels = await self._line.all_of([partial(self._level, dialogues[place], dial) for place, dial in asked])
        found: list[dict[DialName, float | None]] = [{} for _ in dialogues]
        for (place, dial), level in zip(asked, levels, strict=True):
            found[place][dial] = level
        scores = [Scores(**levels) for levels in found]
        self._line.count(scores)
        return scores

    async def close(self) -> None:
        """The engine is not ours to close."""
        self._line.close()

    async def _level(self, dialogue: Dialogue, dial: DialName) -> float | None:
        question = self._spec.asked[dial]
        body = question_body(dialogue, question, model=self._model, options=self._spec.options)
        try:
            completion = await self._engine.complete(EngineRequest(body, uuid.uuid4().hex))
            return level_of(completion, question, least_mass=self._spec.least_mass)
        except ContextOverflow:
            return None
        except NotAnAnswer as exc:
            raise ScorerUnavailable(f"scorer {self._card.name!r}: {exc}") from exc
        except RheostatError as exc:
            raise ScorerUnavailable(
                f"scorer {self._card.name!r}: the serving model did not take the question: {_cause(exc)}",
                headers=exc.headers,
            ) from exc


def build_label_read(spec: LabelReadSpec, engine: Engine) -> LabelRead:
    """The scorer that asks the base model of `engine`."""
    return LabelRead(engine, engine.models()[0], spec)


def _digest(model: str, spec: LabelReadSpec) -> str:
    """What decides the levels but for the weights: the wording, the model's name, and how it is asked."""
    questions = {dial: question.model_dump() for dial, question in spec.asked.items()}
    told = orjson.dumps([model, questions, spec.options, spec.least_mass], option=orjson.OPT_SORT_KEYS)
    return f"sha256:{hashlib.sha256(told).hexdigest()}"


def _cause(error: RheostatError) -> str:
    """The kind of an engine's error and the field at fault; its message may quote what people wrote."""
    kind = type(error).__name__
    return f"{kind} of {error.param}" if error.param else kind
