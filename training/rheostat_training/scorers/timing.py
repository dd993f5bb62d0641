"""How long a scorer takes for one response, alone on one core."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from rheostat_server.scorers import Dialogue
from rheostat_server.scorers.text.text_scorer import TextScorer

TIMED_DIALOGUES = 60
WARMING_UP = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Median milliseconds a response: on the clock, and of the processor, which other processes disturb less."""

    wall: float
    cpu: float


def milliseconds(scorer: TextScorer, dialogues: Sequence[Dialogue], *, seed: int) -> Timing:
    """Of up to TIMED_DIALOGUES dialogues, each judged alone, after a few that warm up."""
    drawn = np.random.default_rng(seed).permutation(len(dialogues))[: TIMED_DIALOGUES + WARMING_UP]
    wall, cpu = [], []
    with _one_thread():
        for at in drawn:
            begun = time.perf_counter(), time.process_time()
            scorer.levels([dialogues[at]])
            wall.append((time.perf_counter() - begun[0]) * 1000)
            cpu.append((time.process_time() - begun[1]) * 1000)
    return Timing(*(round(median(taken[WARMING_UP:] or taken), 2) for taken in (wall, cpu)))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
