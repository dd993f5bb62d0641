"""The running batch: prompts join and answers leave at the border of any step."""

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import torch

from rheostat_server.engines.embedded.attention import Step, Stretch
from rheostat_server.engines.embedded.cache import PromptCache, SlotCache
from rheostat_server.engines.embedded.job import Job
from rheostat_server.engines.embedded.mailbox import Letter, TokenScore
from rheostat_server.engines.embedded.model import Model, Tokens
from rheostat_server.engines.embedded.row import Row
from rheostat_server.engines.embedded.sampling import Sampler, log_probabilities

READ_AHEAD: Final = 512
"""Prompt tokens read in one step at the most, so that running answers wait a bounded time for a long prompt."""


class Reading:
    """A job whose prompt is being read; its candidates share what was read. `wanted` are those not dropped yet."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.wanted = list(range(job.candidates))
        self.cache = PromptCache(len(job.prompt))
        self.done = 0
        self.next = 0

    @property
    def left(self) -> int:
        return len(self.job.prompt) - self.done

    @property
    def finishes(self) -> bool:
        """Whether the coming step reads the prompt's last token."""
        return self.next > 0 and self.next == self.left


class Batch:
    """Rows and readings; row i is in slot i of the cache. Belongs to one thread."""

    def __init__(self, model: Model, *, max_rows: int) -> None:
        self._model = model
        self._max_rows = max_rows
        self._waiting: deque[Job] = deque()
        self._readings: list[Reading] = []
        self._rows: list[Row] = []
        self._slots = SlotCache()
        self._sampler: Sampler | None = None

    @property
    def waiting(self) -> int:
        """Jobs whose prompt no step has begun to read."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that are being read or answered."""
        return len(self._readings) + len({id(row.job) for row in self._rows})

    @property
    def sequences(self) -> int:
        """Answers that run, or will once their prompt is read."""
        return len(self._rows) + sum(len(reading.wanted) for reading in self._readings)

    @property
    def waiting_sequences(self) -> int:
        """Answers of the jobs that wait."""
        return sum(job.candidates for job in self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._readings or self._waiting)

    @property
    def jobs(self) -> Collection[Job]:
        return [*self._waiting, *(reading.job for reading in self._readings), *{row.job for row in self._rows}]

    def add(self, job: Job) -> None:
        self._waiting.append(job)

    def drop(self, job: Job) -> None:
        """Forgets a job and its candidates; a job that has ended or never came is no matter."""
        if job in self._waiting:
            self._waiting.remove(job)
        self._readings = [reading for reading in self._readings if reading.job is not job]
        self._keep([row.job is not job for row in self._rows])

    def drop_candidate(self, job: Job, candidate: int) -> None:
        """Forgets one candidate of a job whose prompt is being read or answered."""
        for reading in self._readings:
            if reading.job is job and candidate in reading.wanted:
                reading.wanted.remove(candidate)
        self._readings = [reading for reading in self._readings if reading.wanted]
        self._keep([(row.job, row.candidate) != (job, candidate) for row in self._rows])

    @torch.inference_mode()
    def step(self) -> list[Letter]:
        """Reads some of the prompts and gives every row its next token."""
        self._admit()
        reading = self._share_out()
        logits = self._model.logits(self._tokens(reading), self._plan(reading))
        logits = logits[self._start(reading)]
        letters = self._advance(logits)
        self._keep([row.finish_reason is None for row in self._rows])
        return letters

    def _admit(self) -> None:
        """Takes jobs in the order in which they came, as long as there is room for all their candidates."""
        taken = self.sequences
        while self._waiting and taken + self._waiting[0].candidates <= self._max_rows:
            job = self._waiting.popleft()
            self._readings.append(Reading(job))
            taken += job.candidates

    def _share_out(self) -> list[Reading]:
        """The readings that the coming step advances, each with its share of READ_AHEAD as `next`."""
        for reading, share in zip(
            self._readings, fair_shares([reading.left for reading in self._readings], READ_AHEAD), strict=True
        ):
            reading.next = share
        return [reading for reading in self._readings if reading.next]

    def _tokens(self, readings: Sequence[Reading]) -> Tokens:
        """The flat sequence of the coming step: each row's newest token, then stretches of prompts."""
        ids = [row.ids[-1] for row in self._rows]
        positions = [row.position for row in self._rows]
        mixes = [row.job.mix for row in self._rows]
        keep = list(range(len(self._rows)))
        for reading in readings:
            end = reading.done + reading.next
            ids += reading.job.prompt[reading.done : end]
            positions += range(reading.done, end)
            mixes += [reading.job.mix] * reading.next
            if reading.finishes:
                keep.append(len(ids) - 1)
        return Tokens(ids=ids, positions=positions, mixes=mixes, keep=keep)

    def _plan(self, readings: Sequence[Reading]) -> Step:
        positions = [row.position for row in self._rows]
        span = max(positions, default=-1) + 1
        self._slots.reserve(len(self._rows), span)
        return Step(
            slots=self._slots,
            positions=torch.tensor(positions, dtype=torch.long, device=self._model.device),
            stretches=[Stretch(reading.cache, reading.done, reading.next) for reading in readings],
            span=span,
        )

    def _start(self, readings: Sequence[Reading]) -> list[int]:
        """Turns prompts that have been read into rows; returns, for each row, which of the logits are its own."""
        own = list(range(len(self._rows)))
        place = len(self._rows)
        for reading in readings:
            finishes = reading.finishes
            reading.done += reading.next
            if finishes:
                own += [place] * len(reading.wanted)
                place += 1
                self._seat(reading)
        self._readings = [reading for reading in self._readings if reading.left]
        return own

    def _seat(self, reading: Reading) -> None:
        job = reading.job
        slots = range(len(self._rows), len(self._rows) + len(reading.wanted))
        self._slots.reserve(slots.stop, len(job.prompt))
        self._slots.adopt(reading.cache, slots)
        self._rows += [Row(job, number, self._model.text) for number in reading.wanted]
        self._sampler = None

    def _advance(self, logits: torch.Tensor) -> list[Letter]:
        """Gives each row its next token; returns what there is to tell."""
        if not self._rows:
            return []
        if self._sampler is None:
            self._sampler = Sampler(self._rows, vocabulary=logits.shape[-1], device=logits.device)
        tokens = self._sampler.draw(logits)
        scores = self._scores(logits, tokens)
        pieces = [row.take(token, scores.get(i)) for i, (row, token) in enumerate(zip(self._rows, tokens, strict=True))]
        return [
            (row.job.mailboxes[row.candidate], piece) for row, piece in zip(self._rows, pieces, strict=True) if piece
        ]

    def _scores(self, logits: torch.Tensor, tokens: Sequence[int]) -> dict[int, TokenScore]:
        """Log-probabilities of the rows that want them, by row."""
        wanted = {i: row.job.top_logprobs for i, row in enumerate(self._rows) if row.job.top_logprobs is not None}
        if not wanted:
            return {}
        index = list(wanted)
        own, ids, best = log_probabilities(logits[index], [tokens[i] for i in index], top=max(wanted.values()))
        return {
            i: TokenScore(tokens[i], own[at], dict(zip(ids[at][:top], best[at][:top], strict=True)))
            for at, (i, top) in enumerate(wanted.items())
        }

    @torch.inference_mode()
    def _keep(self, wanted: Sequence[bool]) -> None:
        """Drops the rows that are not wanted; the last rows fill the gaps."""
        if all(wanted):
            return
        stay = list(wanted)
        hole = 0
        while (hole := _first_false(stay, hole)) < len(stay):
            last = len(stay) - 1
            if stay[last] and last != hole:
                self._slots.move(last, hole, self._rows[last].position)
                self._rows[hole] = self._rows[last]
                stay[hole] = True
            stay.pop()
            self._rows.pop()
        self._sampler = None


def fair_shares(wants: Sequence[int], budget: int) -> list[int]:
    """Shares out a budget: equally, and what one does not want goes to the others."""
    shares = [0] * len(wants)
    for rank, index in enumerate(sorted(range(len(wants)), key=wants.__getitem__)):
        shares[index] = min(wants[index], -(-budget // (len(wants) - rank)))
        budget -= shares[index]
    return shares


def _first_false(flags: Sequence[bool], start: int) -> int:
    return next((i for i in range(start, len(flags)) if not flags[i]), len(flags))
