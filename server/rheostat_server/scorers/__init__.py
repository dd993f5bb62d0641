"""Scorers judge answers: safety and helpfulness in [0, 1], or that they could not judge.

An operator names them in a file (`spec/`); `panel.py` asks all of a server's scorers and is what the rest of the
server sees: read it first. `classifier.py`, `guard.py`, `text/` judge by models of their own in this process, behind
`batching.py`; `label_read.py` asks the serving model, `remote.py` another server, behind `line.py`; `yes_no.py` is
what both ask, and `guard_chat.py` how a guard on another server is asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rheostat_server.contract.dials import DialName

Message = Mapping[str, Any]
Reads = Literal["chat", "pair", "answer"]
"""What a model reads of a dialogue: all by its chat template, question and answer as a pair, or the answer alone."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation as OpenAI writes it, its contents being text, and the answer to be judged."""

    messages: Sequence[Message]
    answer: str

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer to judge: an empty one cannot be."""
        return bool(self.answer.strip())

    @property
    def question(self) -> str:
        """The last user message; empty where there is none."""
        return next((str(turn["content"]) for turn in reversed(self.messages) if turn["role"] == "user"), "")


@dataclass(frozen=True, slots=True)
class Scores:
    """Levels in [0, 1]; None where the scorer could not judge, which is never a level of 0."""

    safety: float | None = None
    helpfulness: float | None = None

    def level(self, dial: DialName) -> float | None:
        return self.safety if dial == "safety" else self.helpfulness


UNJUDGED = Scores()


@dataclass(frozen=True, slots=True)
class ScorerCard:
    """What a scorer is: its name, its kind, the digest of what decides its levels, and the dials that it judges."""

    name: str
    kind: str
    digest: str
    dials: tuple[DialName, ...]


class Scorer(Protocol):
    """Judges dialogues for one dial or for both."""

    @property
    def card(self) -> ScorerCard: ...

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        """Scores in the order of the dialogues; None for a dial that it does not judge, or could not.

        Raises:
            ScorerUnavailable: it is gone, too busy, or too slow. Cancelling the call frees what it asked for.
        """
        ...

    async def close(self) -> None:
        """Frees what the scorer holds; a second call does nothing."""
        ...


class LocalScorer(Protocol):
    """A model in this process that judges, one batch at a time; `batching.Batched` makes a Scorer of it."""

    @property
    def card(self) -> ScorerCard: ...

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        """Scores in the order of the dialogues. Called from one thread only, which may not be the event loop's."""
        ...
