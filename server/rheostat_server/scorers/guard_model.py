"""A guard in this process: a causal language model whose verdict is read from one forward, nothing generated."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import Tensor

from rheostat_server.quiet_loading import quiet_loading
from rheostat_server.scorers import UNJUDGED, Dialogue, ScorerCard, Scores
from rheostat_server.scorers.guard_formats import GuardFormat, lowest
from rheostat_server.scorers.guard_prompts import GuardPrompts, GuardUnusable, Place

FORWARD_TOKENS: Final = 16384
"""Most tokens of one forward, padding counted; a longer prompt has a forward to itself."""


class Guard:
    """A LocalScorer of the dial safety."""

    def __init__(
        self,
        card: ScorerCard,
        network: transformers.PreTrainedModel,
        prompts: GuardPrompts,
        format: GuardFormat,
        *,
        least_mass: float,
    ) -> None:
        self._card = card
        self._network = network
        self._prompts = prompts
        self._format = format
        self._least_mass = least_mass

    @property
    def card(self) -> ScorerCard:
        return self._card

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        asked = [self._prompts.places(dialogue) for dialogue in dialogues]
        levels = iter(self._levels([place for places in asked if places for place in places]))
        return [Scores(safety=lowest([next(levels) for _ in places])) if places else UNJUDGED for places in asked]

    def _levels(self, places: Sequence[Place]) -> list[float | None]:
        levels: list[float | None] = [None] * len(places)
        for batch in _batches([len(place.context) for place in places]):
            for row, shares in zip(batch, self._shares([places[row] for row in batch]), strict=True):
                words = places[row].verdicts
                levels[row] = self._format.level(dict(zip(words, shares, strict=True)), least_mass=self._least_mass)
        return levels

    @torch.inference_mode()
    def _shares(self, places: Sequence[Place]) -> list[list[float]]:
        """Probabilities of the verdicts, in their order; padded on the left, so that all verdicts stand last."""
        width = max(len(place.context) for place in places)
        ids = self._tensor([[0] * (width - len(place.context)) + [*place.context] for place in places])
        lengths = self._tensor([len(place.context) for place in places])
        positions = torch.arange(width, device=ids.device) - (width - lengths[:, None])
        output = self._network(
            input_ids=ids,
            attention_mask=(positions >= 0).long(),
            position_ids=positions.clamp(min=0),
            use_cache=False,
            logits_to_keep=1,
        )
        verdicts = self._tensor([[*place.verdicts.values()] for place in places])
        shares: list[list[float]] = output.logits[:, -1].float().softmax(-1).gather(1, verdicts).tolist()
        return shares

    def _tensor(self, values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._network.device)


def load_network(folder: Path, *, device: str, dtype: str, trust_remote_code: bool) -> transformers.PreTrainedModel:
    """Loads from safetensors alone and without the network; `dtype` "auto" is that of the weights.

    Raises:
        GuardUnusable: there is no causal LM, weights are missing, or the device is not here.
    """
    loaded: Any
    try:
        with quiet_loading():  # Llama Guard 4 brings eyes that are not needed
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except (ValueError, OSError) as exc:
        raise GuardUnusable(f"it cannot be loaded as a causal language model: {exc}") from exc
    network, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise GuardUnusable(f"{len(missing)} of its weights are not in the files, such as {missing[0]}")
    try:
        torch.nn.Module.to(network, torch.device(device))
    except (RuntimeError, AssertionError) as exc:
        raise GuardUnusable(f"it cannot be put on device {device!r}: {exc}") from exc
    ready: transformers.PreTrainedModel = network.eval().requires_grad_(False)
    return ready


def load_prompts(
    folder: Path, format: GuardFormat, *, max_tokens: int, context: int | None, trust_remote_code: bool
) -> GuardPrompts:
    """Prompts of at most `max_tokens` tokens, and no more than the model's context.

    Raises:
        GuardUnusable: the tokenizer is none of the tokenizers library, or its template does not fit the format.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    )
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise GuardUnusable("its tokenizer has no tokenizer.json")
    return GuardPrompts(tokenizer, format, max_tokens=min(max_tokens, context or max_tokens))


def context_of(network: transformers.PreTrainedModel) -> int | None:
    """Most tokens that the model reads; None where its configuration does not say."""
    found: int | None = network.config.get_text_config().to_dict().get("max_position_embeddings")
    return found


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length, so that little is padded."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > FORWARD_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
