"""Which tokens are drawn, and how often."""

import math
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import torch

from rheostat_server.engines.embedded.sampling import ModelBroken, Sampler, Sampling

CPU = torch.device("cpu")


@dataclass(slots=True)
class Row:
    sampling: Sampling
    prompt: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(0))
    barred: list[int] = field(default_factory=list)


def draw(logits: torch.Tensor, row: Row) -> int:
    return Sampler([row], vocabulary=len(logits), device=CPU).draw(logits[None])[0]


def often(logits: torch.Tensor, draws: int = 4000, **settings: Any) -> torch.Tensor:
    """How often each token is drawn, of 1."""
    rows = [Row(Sampling(**settings), random=Random(number)) for number in range(draws)]
    drawn = Sampler(rows, vocabulary=len(logits), device=CPU).draw(logits.expand(draws, -1))
    return torch.bincount(torch.tensor(drawn), minlength=len(logits)) / draws


LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.08, 0.02]).log()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.08, 0.02]),
        ({"temperature": 0.5}, [0.25, 0.0625, 0.0225, 0.0064, 0.0004]),
        ({"temperature": 0}, [1, 0, 0, 0, 0]),
        ({"temperature": 1e-9}, [1, 0, 0, 0, 0]),
        ({"top_k": 2}, [0.5, 0.25, 0, 0, 0]),
        ({"top_p": 0.7}, [0.5, 0.25, 0, 0, 0]),
        ({"top_p": 0.76}, [0.5, 0.25, 0.15, 0, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0, 0]),
        ({"top_p": 1e-50}, [1, 0, 0, 0, 0]),
        ({"top_k": 2**64 - 1}, [0.5, 0.25, 0.15, 0.08, 0.02]),
        ({"min_p": 0.2}, [0.5, 0.25, 0.15, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0.5, 0.25, 0, 0, 0]),
        ({"min_p": 0.2, "top_p": 0.84}, [0.5, 0.25, 0.15, 0, 0]),
        ({"min_p": 0.2, "top_p": 0.83}, [0.5, 0.25, 0, 0, 0]),
        ({"logit_bias": {0: -100.0, 4: math.log(25)}}, [0, 0.25, 0.15, 0.08, 0.5]),
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_their_settings_say(settings: dict[str, Any], expected: list[float]) -> None:
    wanted = torch.tensor(expected)
    wanted = wanted / wanted.sum()
    found = often(LOGITS, **settings)
    assert bool((found[wanted == 0] == 0).all())
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_cuts_reach_as_far_into_a_large_vocabulary_as_they_must() -> None:
    logits = torch.zeros(5000)
    drawn = often(logits, draws=3000, top_p=0.5).nonzero()
    assert len(drawn) > 1000
    assert len(often(logits, draws=3000, top_k=300).nonzero()) in range(250, 301)


def test_rows_of_all_kinds_are_drawn_together_as_they_are_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 300)
    kinds = [
        Sampling(),
        Sampling(temperature=0),
        Sampling(top_p=0.8),
        Sampling(top_k=5, temperature=1.5),
        Sampling(presence_penalty=1.5, frequency_penalty=0.5),
        Sampling(min_p=0.1, repetition_penalty=1.3, logit_bias={7: 5.0}),
    ]

    def rows() -> list[Row]:
        return [Row(kind, prompt=[1, 2], ids=[3, 3], random=Random(number)) for number, kind in enumerate(kinds)]

    together = Sampler(rows(), vocabulary=300, device=CPU).draw(logits)
    assert together == [draw(own, row) for own, row in zip(logits, rows(), strict=True)]


@pytest.mark.parametrize(
    ("settings", "adjusted"),
    [
        ({"presence_penalty": 1.0}, [2.0, 1.0, -1.0, 1.0]),
        ({"frequency_penalty": 0.5}, [2.0, 1.0, -1.0, 1.0]),
        ({"repetition_penalty": 2.0}, [1.0, 1.0, -2.0, 1.0]),
    ],
    ids=str,
)
def test_penalties_are_openais_and_vllms(settings: dict[str, Any], adjusted: list[float]) -> None:
    """Token 0 is in the prompt; token 3 twice, token 2 never in the answer, which frequency alone counts."""
    logits = torch.tensor([2.0, 1.0, -1.0, 2.0])
    row = Row(Sampling(**settings), prompt=[0, 2], ids=[3, 3])
    sampler = Sampler([row], vocabulary=4, device=CPU)
    assert sampler._adjusted(logits[None])[0].tolist() == adjusted


def test_penalties_count_what_is_drawn_meanwhile() -> None:
    row = Row(Sampling(temperature=0, presence_penalty=2.0))
    sampler = Sampler([row], vocabulary=3, device=CPU)
    logits = torch.tensor([[3.0, 2.0, 1.5]])
    assert [sampler.draw(logits)[0] for _ in range(3)] == [0, 1, 2]


def test_a_barred_token_is_not_taken() -> None:
    assert draw(LOGITS, Row(Sampling(temperature=0), barred=[0, 1])) == 2


def test_the_same_random_numbers_draw_the_same_tokens() -> None:
    counts = Counter(draw(LOGITS, Row(Sampling(), random=Random("7/0"))) for _ in range(20))
    assert len(counts) == 1


def test_logits_that_are_no_numbers_are_an_error_and_no_answer() -> None:
    with pytest.raises(ModelBroken):
        draw(torch.tensor([0.0, math.nan]), Row(Sampling()))
