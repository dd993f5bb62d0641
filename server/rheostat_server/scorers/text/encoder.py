"""The lower layers of a pretrained sentence encoder, kept frozen: texts in, unit vectors out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

POOLING_FILE = Path("1_Pooling") / "config.json"
MEAN_POOLING = "pooling_mode_mean_tokens"
BATCH_TEXTS = 32


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model of transformers and its tokenizer; a text's vector is the mean of its token states."""

    model: Any
    tokenizer: Any
    batch_rows: int = BATCH_TEXTS

    @classmethod
    def load(
        cls, folder: Path, *, layers: int | None = None, batch_rows: int = BATCH_TEXTS, device: str = "cpu"
    ) -> "Encoder":
        """The first `layers` layers of a folder; all of them where it has no more.

        Raises:
            ValueError: the folder says that its vectors are pooled in another way than by the mean, or its layers
                are not one list.
        """
        pooling = folder / POOLING_FILE
        if pooling.exists() and not json.loads(pooling.read_text()).get(MEAN_POOLING, False):
            raise ValueError(f"{pooling} has no {MEAN_POOLING}; an encoder here pools by the mean")
        model = AutoModel.from_pretrained(folder, use_safetensors=True).to(device).eval()
        if layers is not None:
            _keep_lower(model, layers)
        return cls(model, AutoTokenizer.from_pretrained(folder), batch_rows)

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def parameters(self) -> int:
        return int(sum(values.numel() for values in self.model.parameters()))

    @torch.inference_mode()
    def vectors(
        self, texts: Sequence[str], *, max_tokens: int, told: Callable[[int], object] | None = None
    ) -> NDArray[np.float32]:
        """[texts, width]: the mean state of the first `max_tokens` tokens of each, at length 1.

        `told` is called with the size of each batch that is done.
        """
        result = np.zeros((len(texts), self.width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(order), self.batch_rows):
            chunk = order[start : start + self.batch_rows]
            result[chunk] = self._batch([texts[at] for at in chunk], max_tokens)
            if told:
                told(len(chunk))
        return result

    def _batch(self, texts: Sequence[str], max_tokens: int) -> NDArray[np.float32]:
        found = self.tokenizer(list(texts), truncation=True, max_length=max_tokens, padding=True, return_tensors="pt")
        found = found.to(self.model.device)
        mask = found["attention_mask"]
        states = self.model(input_ids=found["input_ids"], attention_mask=mask).last_hidden_state.float()
        kept = mask[..., None].float()
        means = (states * kept).sum(1) / kept.sum(1).clamp(min=1)
        values: NDArray[np.float32] = torch.nn.functional.normalize(means, dim=-1).cpu().numpy()
        return values


def _keep_lower(model: Any, layers: int) -> None:
    count = model.config.num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    if len(lists) != 1:
        raise ValueError(f"{type(model).__name__} has {len(lists)} lists of its {count} layers; one can be cut")
    del lists[0][layers:]
    model.config.num_hidden_layers = len(lists[0])
