"""The losses against slow second implementations, finite differences, and the closed-form optimum."""

import math

import pytest
import torch
from torch import Tensor

from rheostat_training.losses import clm, exmate, kl_to_reference, mate, mean_log_probs

ALPHA = 0.3


def random_rows(rows: int = 4, tokens: int = 6, vocabulary: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, tokens, vocabulary, generator=chance, dtype=torch.float64)
    targets = torch.randint(vocabulary, (rows, tokens), generator=chance)
    mask = torch.rand(rows, tokens, generator=chance) < 0.7
    mask[:, 0] = True
    return logits, targets, mask


def slow_log_prob(logits: Tensor, targets: Tensor, mask: Tensor) -> float:
    """One row, by the sum over the vocabulary and Python floats."""
    total, count = 0.0, 0
    for scores, target, kept in zip(logits.tolist(), targets.tolist(), mask.tolist(), strict=True):
        if kept:
            total += scores[target] - math.log(sum(math.exp(score) for score in scores))
            count += 1
    return total / count


def slow_loss(name: str, logs: list[float], positives: int) -> float:
    good, bad = logs[:positives], logs[positives:]
    likelihood = -sum(good) / len(good)
    penalty = {"clm": 0.0, "mate": sum(bad) / len(bad), "exmate": sum(map(math.exp, bad)) / len(bad)}[name]
    return likelihood + ALPHA * penalty


def test_mean_log_probs_are_those_of_a_loop_over_tokens() -> None:
    logits, targets, mask = random_rows()
    wanted = [slow_log_prob(*row) for row in zip(logits, targets, mask, strict=True)]
    assert mean_log_probs(logits, targets, mask).tolist() == pytest.approx(wanted, rel=1e-12)


def test_what_stands_under_a_masked_position_does_not_matter() -> None:
    logits, targets, mask = random_rows()
    other = torch.where(mask, targets, (targets + 1) % logits.shape[-1])
    assert torch.equal(mean_log_probs(logits, targets, mask), mean_log_probs(logits, other, mask))


def test_a_row_without_any_kept_token_gives_zero() -> None:
    logits, targets, mask = random_rows()
    assert mean_log_probs(logits, targets, torch.zeros_like(mask)).tolist() == [0.0] * len(targets)


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    logits, targets, mask = random_rows()
    assert mean_log_probs(logits.to(torch.bfloat16), targets, mask).dtype == torch.float32


@pytest.mark.parametrize(("name", "loss"), [("clm", clm), ("mate", mate), ("exmate", exmate)])
def test_each_loss_is_that_of_a_slow_second_implementation(name: str, loss: object) -> None:
    logits, targets, mask = random_rows()
    logs = mean_log_probs(logits, targets, mask)
    wanted = slow_loss(name, [slow_log_prob(*row) for row in zip(logits, targets, mask, strict=True)], 2)
    assert callable(loss)
    assert float(loss(logs[:2], logs[2:], ALPHA)) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("loss", [clm, mate, exmate])
def test_gradients_agree_with_finite_differences(loss: object) -> None:
    logits, targets, mask = random_rows(rows=4, tokens=3, vocabulary=4)
    assert callable(loss)

    def of_logits(values: Tensor) -> Tensor:
        logs = mean_log_probs(values, targets, mask)
        result: Tensor = loss(logs[:2], logs[2:], ALPHA)
        return result

    assert torch.autograd.gradcheck(of_logits, (logits.requires_grad_(),))


def test_the_exmate_gradient_is_the_published_one() -> None:
    logits, targets, mask = random_rows(rows=2)
    logits.requires_grad_()
    logs = mean_log_probs(logits, targets, mask)
    exmate(logs[:1], logs[1:], ALPHA).backward()  # type: ignore[no-untyped-call]
    probabilities = logits.detach().softmax(-1)
    chosen = torch.nn.functional.one_hot(targets, logits.shape[-1])
    scale = mask.double() / mask.sum(1, keepdim=True)
    g = float(logs[1].detach().exp())
    wanted = torch.stack(
        [(probabilities - chosen)[0] * scale[0][:, None], ALPHA * g * (chosen - probabilities)[1] * scale[1][:, None]]
    )
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, wanted)


def test_the_distance_to_a_reference_is_that_of_a_loop_and_zero_for_itself() -> None:
    chance = torch.Generator().manual_seed(2)
    own, reference = (torch.randn(5, 7, generator=chance, dtype=torch.float64).log_softmax(-1) for _ in range(2))
    wanted = 0.0
    for here, there in zip(own.tolist(), reference.tolist(), strict=True):
        wanted += sum(math.exp(q) * (q - p) for p, q in zip(here, there, strict=True)) / 5
    assert float(kl_to_reference(own, reference)) == pytest.approx(wanted, rel=1e-12)
    assert float(kl_to_reference(own, own)) == pytest.approx(0, abs=1e-12)


def test_exmate_with_alpha_zero_is_clm() -> None:
    logs = torch.tensor([-1.0, -2.0, -0.5])
    assert torch.equal(exmate(logs[:2], logs[2:], 0.0), clm(logs[:2], logs[2:], 0.0))


def test_without_negatives_every_loss_is_clm() -> None:
    logs = torch.tensor([-1.0, -2.0])
    for loss in (mate, exmate):
        assert torch.equal(loss(logs, logs[:0], ALPHA), clm(logs, logs[:0], ALPHA))


def test_the_exmate_optimum_of_one_decision_is_the_closed_form() -> None:
    """p*(y) = q⁺(y)/(λ + α·q⁻(y)), λ = 1 − α·E_{q⁻}[p*], reached by descent on one softmax."""
    good = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    bad = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([scores], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimiser.zero_grad()
        logs = scores.log_softmax(-1)
        loss = -(good * logs).sum() + ALPHA * (bad * logs.exp()).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    reached = scores.detach().softmax(-1)
    multiplier = 1 - ALPHA * float((bad * reached).sum())
    torch.testing.assert_close(reached, good / (multiplier + ALPHA * bad), rtol=1e-6, atol=1e-8)
    assert float(exmate_of(reached, good, bad)) < float(exmate_of(good, good, bad))


def exmate_of(p: Tensor, good: Tensor, bad: Tensor) -> Tensor:
    """`exmate` itself on a population: shares become counts of rows of one token."""
    logs = p.log()
    return exmate(logs.repeat_interleave((good * 20).round().long()), logs.repeat_interleave((bad * 20).long()), ALPHA)
