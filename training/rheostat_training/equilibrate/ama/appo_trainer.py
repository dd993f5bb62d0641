"""TRL's trainers with APPO's masks in their loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat_training.equilibrate.ama.appo import Masker, appo_loss


def masked_grpo(trainer: Any, masker: Masker) -> Any:
    """GRPOTrainer with masks: its loss "dapo" is then APPO's, and its divergence is of the kept tokens too.

    TRL multiplies what it calls a tool's mask into the loss alone, and divides by the number of tokens that it is
    given.
    """

    class MaskedGRPO(trainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
            kept = _kept(self, masker, batch, inputs)
            return {**batch, "tool_mask": kept, "num_items_in_batch": kept.sum()}

    return MaskedGRPO


def masked_rloo(trainer: Any, masker: Masker) -> Any:
    """RLOOTrainer with masks: its advantages, and APPO's loss over tokens in place of its own over answers.

    Each step's answers are learnt from once, so that the policy before is the policy itself, at w = 1.
    """

    class MaskedRLOO(trainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
            kept = _kept(self, masker, batch, inputs)
            return {**batch, "kept": kept, "kept_tokens": kept.sum()}

        def _compute_loss(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            width = inputs["completion_ids"].size(1)
            logs, entropies, _ = self._get_per_token_logps_and_entropies(model, ids, mask, width, compute_entropy=True)
            counted = inputs["completion_mask"]
            mean = (entropies * counted).sum() / counted.sum().clamp(min=1)
            self._metrics["train"]["entropy"].append(mean.item())
            loss = appo_loss(
                logs,
                logs.detach(),
                inputs["advantages"],
                inputs["kept"],
                of=inputs["kept_tokens"],
                epsilon=self.epsilon_low,
            )
            # transformers divides the loss of each part by the number of parts.
            parts: int = self.current_gradient_accumulation_steps
            return loss * parts

    return MaskedRLOO


def _kept(trainer: Any, masker: Masker, batch: Mapping[str, Tensor], inputs: Sequence[Mapping[str, Any]]) -> Tensor:
    """The masks of a step's answers, whose shares are told to the log; `inputs` are their rows, by `draw_rows`."""
    with torch.no_grad(), trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
        kept = masker.kept(batch, int(trainer.state.global_step), [row["safety"] for row in inputs])
    for name, value in kept.shares.items():
        trainer._metrics["train"][name].append(value)
    return kept.mask
