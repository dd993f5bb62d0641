"""One candidate's answer as it is written."""

from collections.abc import Collection, Sequence
from random import Random, SystemRandom

from tokenizers import Tokenizer

from rheostat_server.engines.embedded.job import Job
from rheostat_server.engines.embedded.mailbox import FinishReason, Piece, TokenScore
from rheostat_server.engines.embedded.sampling import Sampling
from rheostat_server.engines.embedded.text import Detokenizer, StopText


class Row:
    """Takes tokens, tells pieces, and knows when the answer has ended."""

    def __init__(self, job: Job, candidate: int, tokenizer: Tokenizer) -> None:
        self.job = job
        self.candidate = candidate
        self.ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.random = SystemRandom() if job.seed is None else Random(f"{job.seed}/{candidate}")
        self._detokenizer = Detokenizer(tokenizer, job.prompt)
        self._stop_text = StopText(job.stop_texts)
        self._text: list[str] = []
        self._scores: list[TokenScore] = []
        self._told = 0

    @property
    def prompt(self) -> Sequence[int]:
        return self.job.prompt

    @property
    def sampling(self) -> Sampling:
        return self.job.sampling

    @property
    def barred(self) -> Collection[int]:
        return self.job.barred_at_first if len(self.ids) < self.job.min_tokens else ()

    @property
    def position(self) -> int:
        """The place of the newest token, which the model has not read yet."""
        return len(self.job.prompt) + len(self.ids) - 1

    def take(self, token: int, score: TokenScore | None) -> Piece | None:
        """Adds a token; returns what can be told now, if anything."""
        self.ids.append(token)
        if score is not None:
            self._scores.append(score)
        if text := self._grow(token):
            self._text.append(text)
        if self.finish_reason or (self.job.streamed and text):
            return self._piece()
        return None

    def _grow(self, token: int) -> str:
        """The text that this token lets out; sets `finish_reason` if the answer ends with it."""
        if token in self.job.stop_ids:
            self.finish_reason = "stop"
            return self._stop_text.flush()
        text = self._detokenizer.push(token)
        if len(self.ids) > self.job.min_tokens:
            text = self._stop_text.push(text)
        if self._stop_text.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.job.max_tokens:
            self.finish_reason = "length"
            text += self._stop_text.flush()
        return text

    def _piece(self) -> Piece:
        piece = Piece(
            candidate=self.candidate,
            text="".join(self._text),
            tokens=len(self.ids) - self._told,
            scores=tuple(self._scores),
            finish_reason=self.finish_reason,
        )
        self._told = len(self.ids)
        self._text.clear()
        self._scores.clear()
        return piece
