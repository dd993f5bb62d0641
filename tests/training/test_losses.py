"""The losses against slow second implementations, finite differences, and the closed-form optimum."""

import math

import pytest
import torch
from torch import Tensor

from rheostat_training.losses import LEAST_CHANCE, LOSSES, RowLogs, clm, exmate, kl_to_reference, token_log_probs

WEIGHT = 0.3
NAMES = sorted(LOSSES)
PUSHED = ["mate", "exmate", "unlikelihood"]


def random_rows(rows: int = 4, tokens: int = 6, vocabulary: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, tokens, vocabulary, generator=chance, dtype=torch.float64)
    targets = torch.randint(vocabulary, (rows, tokens), generator=chance)
    mask = torch.rand(rows, tokens, generator=chance) < 0.7
    mask[:, 0] = True
    return logits, targets, mask


AIMS = torch.tensor([0.5, -1.0, 0.0, 0.0], dtype=torch.float64)
REFERENCE = torch.tensor([-7.0, -9.5, -8.0, -6.5], dtype=torch.float64)


def rows_of(logits: Tensor, targets: Tensor, mask: Tensor, which: slice) -> RowLogs:
    tokens = token_log_probs(logits, targets, mask)[which]
    return RowLogs(tokens, mask[which], len(tokens), REFERENCE[which], AIMS[which])


def of_logits(name: str, logits: Tensor, targets: Tensor, mask: Tensor, positives: int) -> Tensor:
    good, bad = (rows_of(logits, targets, mask, which) for which in (slice(positives), slice(positives, None)))
    return LOSSES[name](good, bad, WEIGHT)


def decisions(logs: Tensor) -> RowLogs:
    """Answers of one token each."""
    return RowLogs(logs[:, None], torch.ones_like(logs[:, None], dtype=torch.bool), len(logs))


def slow_log_probs(logits: Tensor, targets: Tensor, mask: Tensor) -> list[float]:
    """One row, by the sum over the vocabulary and Python floats."""
    return [
        scores[target] - math.log(sum(math.exp(score) for score in scores))
        for scores, target, kept in zip(logits.tolist(), targets.tolist(), mask.tolist(), strict=True)
        if kept
    ]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def slow_loss(name: str, rows: list[list[float]], positives: int) -> float:
    good, bad = rows[:positives], rows[positives:]
    if name == "rpo":
        return slow_loss("dpo", rows, positives) + slow_loss("clm", rows, positives)
    if name in ("dpo", "bfpo"):
        ratios = [sum(row) - float(reference) for row, reference in zip(rows, REFERENCE, strict=True)]
        margins = [chosen - rejected for chosen, rejected in zip(ratios[:positives], ratios[positives:], strict=True)]
        aimed = [*zip(margins, AIMS.tolist(), strict=False)]
        if name == "bfpo":
            return mean([(margin - aim / WEIGHT) ** 2 for margin, aim in aimed])
        return mean([-math.log(1 / (1 + math.exp(aim - WEIGHT * margin))) for margin, aim in aimed])
    if name == "arj":
        return -mean([sum(row) for row in good])
    penalty = {
        "clm": 0.0,
        "mate": mean([mean(row) for row in bad]),
        "exmate": mean([math.exp(mean(row)) for row in bad]),
        "unlikelihood": mean([mean([-math.log(1 - math.exp(log)) for log in row]) for row in bad]),
    }[name]
    return -mean([mean(row) for row in good]) + WEIGHT * penalty


def test_log_probs_are_those_of_a_loop_over_tokens() -> None:
    logits, targets, mask = random_rows()
    reached = token_log_probs(logits, targets, mask)
    for row, kept, *slow in zip(reached, mask, logits, targets, mask, strict=True):
        assert row[kept].tolist() == pytest.approx(slow_log_probs(*slow), rel=1e-12)
        assert not row[~kept].any()


def test_what_stands_under_a_masked_position_does_not_matter() -> None:
    logits, targets, mask = random_rows()
    other = torch.where(mask, targets, (targets + 1) % logits.shape[-1])
    assert torch.equal(token_log_probs(logits, targets, mask), token_log_probs(logits, other, mask))


def test_a_row_without_any_kept_token_gives_zero() -> None:
    logits, targets, mask = random_rows()
    assert rows_of(logits, targets, torch.zeros_like(mask), slice(None)).means().tolist() == [0.0] * len(targets)


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    logits, targets, mask = random_rows()
    assert token_log_probs(logits.to(torch.bfloat16), targets, mask).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_is_that_of_a_slow_second_implementation(name: str) -> None:
    rows = random_rows()
    wanted = slow_loss(name, [slow_log_probs(*row) for row in zip(*rows, strict=True)], 2)
    assert float(of_logits(name, *rows, 2)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    logits, targets, mask = random_rows(rows=4, tokens=3, vocabulary=4)

    def loss(values: Tensor) -> Tensor:
        return of_logits(name, values, targets, mask, 2)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_of_the_step_is_the_sum_over_its_parts(name: str) -> None:
    logits, targets, mask = random_rows()
    whole = [rows_of(logits, targets, mask, which) for which in (slice(2), slice(2, None))]
    parts = [
        [
            RowLogs(rows.tokens[one], rows.mask[one], rows.of, REFERENCE[2 * half :][one], AIMS[2 * half :][one])
            for half, rows in enumerate(whole)
        ]
        for one in (slice(1), slice(1, 2))
    ]
    total = sum(float(LOSSES[name](good, bad, WEIGHT)) for good, bad in parts)
    assert total == pytest.approx(float(of_logits(name, logits, targets, mask, 2)), rel=1e-12)


def test_the_exmate_gradient_is_the_published_one() -> None:
    logits, targets, mask = random_rows(rows=2)
    logits.requires_grad_()
    of_logits("exmate", logits, targets, mask, 1).backward()  # type: ignore[no-untyped-call]
    probabilities = logits.detach().softmax(-1)
    chosen = torch.nn.functional.one_hot(targets, logits.shape[-1])
    scale = mask.double() / mask.sum(1, keepdim=True)
    g = float(rows_of(logits, targets, mask, slice(1, None)).means().detach().exp())
    wanted = torch.stack(
        [(probabilities - chosen)[0] * scale[0][:, None], WEIGHT * g * (chosen - probabilities)[1] * scale[1][:, None]]
    )
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, wanted)


def test_unlikelihood_of_a_certain_token_is_finite_and_of_a_rare_one_exact() -> None:
    certain, rare = decisions(torch.tensor([0.0])), decisions(torch.tensor([-30.0], dtype=torch.float64))
    none = RowLogs(torch.zeros(0, 1), torch.ones(0, 1, dtype=torch.bool), 0)
    assert float(LOSSES["unlikelihood"](none, certain, 1.0)) == pytest.approx(-math.log(LEAST_CHANCE))
    assert float(LOSSES["unlikelihood"](none, rare, 1.0)) == pytest.approx(math.exp(-30), rel=1e-9)


def test_dpo_of_a_model_that_is_its_reference_is_log_two_whatever_beta() -> None:
    chosen, rejected = (
        RowLogs(tokens, torch.ones_like(tokens, dtype=torch.bool), 2, tokens.sum(1))
        for tokens in (torch.tensor([[-1.0, -2.0], [-0.5, -3.0]]), torch.tensor([[-4.0, -2.5], [-0.1, -0.2]]))
    )
    for beta in (0.01, 0.1, 10.0):
        assert float(LOSSES["dpo"](chosen, rejected, beta)) == pytest.approx(math.log(2))


def test_dpo_without_a_reference_is_refused() -> None:
    rows = decisions(torch.tensor([-1.0]))
    with pytest.raises(ValueError, match="reference is None"):
        LOSSES["dpo"](rows, rows, 0.1)


def test_the_distance_to_a_reference_is_that_of_a_loop_and_zero_for_itself() -> None:
    chance = torch.Generator().manual_seed(2)
    own, reference = (torch.randn(5, 7, generator=chance, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    wanted = 0.0
    for here, there in zip(own.tolist(), reference.tolist(), strict=True):
        wanted += sum(math.exp(q) * (q - p) for p, q in zip(here, there, strict=True)) / 5
    assert float(kl_to_reference(own, reference, 5)) == pytest.approx(wanted, rel=1e-12)
    assert float(kl_to_reference(own, own, 5)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", PUSHED)
def test_a_weight_of_zero_is_clm(name: str) -> None:
    good, bad = decisions(torch.tensor([-1.0, -2.0])), decisions(torch.tensor([-0.5]))
    assert torch.equal(LOSSES[name](good, bad, 0.0), clm(good, bad, 0.0))


@pytest.mark.parametrize("name", PUSHED)
def test_without_negatives_every_loss_is_clm(name: str) -> None:
    logs = torch.tensor([-1.0, -2.0])
    good, none = decisions(logs), decisions(logs[:0])
    assert torch.equal(LOSSES[name](good, none, WEIGHT), clm(good, none, WEIGHT))


def test_the_exmate_optimum_of_one_decision_is_the_closed_form() -> None:
    """p*(y) = q⁺(y)/(λ + α·q⁻(y)), λ = 1 − α·E_{q⁻}[p*], reached by descent on one softmax."""
    good = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    bad = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = exmate_of(scores.softmax(-1), good, bad)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    reached = scores.detach().softmax(-1)
    multiplier = 1 - WEIGHT * float((bad * reached).sum())
    torch.testing.assert_close(reached, good / (multiplier + WEIGHT * bad), rtol=1e-6, atol=1e-8)
    assert float(exmate_of(reached, good, bad)) < float(exmate_of(good, good, bad))


def exmate_of(p: Tensor, good: Tensor, bad: Tensor) -> Tensor:
    """`exmate` itself on a population: shares become counts of rows of one token."""
    logs = p.log()
    counts = ((good * 20).round().long(), (bad * 20).round().long())
    positive, negative = (decisions(logs.repeat_interleave(count)) for count in counts)
    return exmate(positive, negative, WEIGHT)
