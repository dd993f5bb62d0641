"""The language model: loaded from a folder, and run on one flat sequence of tokens a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from rheostat_server.engines.embedded import lora
from rheostat_server.engines.embedded.attention import NAME, Step, Stretch, UnsupportedModel, attend
from rheostat_server.engines.embedded.cache import PromptCache, SlotCache
from rheostat_server.quiet_loading import quiet_loading

# What of a model's generation_config.json stands in for a field that a request leaves out, as in vLLM.
_DEFAULTS: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One step's input, with each token's mix of adapters; `keep` are the places in the flat sequence whose next token
    is asked for."""

    ids: Sequence[int]
    positions: Sequence[int]
    mixes: Sequence[lora.Mix]
    keep: Sequence[int]


class Model:
    """A causal LM and its adapters. Not for two threads at once."""

    def __init__(self, network: transformers.PreTrainedModel, gates: lora.Gates, tokenizer: Any) -> None:
        self._network = network
        self._gates = gates
        self.tokenizer = tokenizer
        self.text: Tokenizer = tokenizer.backend_tokenizer
        self.context: int = _context(network.config)
        self.vocabulary: int = network.config.get_text_config().vocab_size
        self.stop_ids = _stop_ids(network, tokenizer)

    @property
    def device(self) -> torch.device:
        return torch.device(self._network.device)

    def logits(self, tokens: Tokens, step: Step) -> Tensor:
        """(len(keep), vocabulary), in float32."""
        self._gates.set(self._weights(tokens.mixes) if any(tokens.mixes) else None)
        output = self._network(
            input_ids=self._tensor(tokens.ids)[None],
            position_ids=self._tensor(tokens.positions)[None],
            use_cache=False,
            logits_to_keep=self._tensor(tokens.keep),
            step=step,
        )
        logits: Tensor = output.logits[0]
        return logits.float()

    def defaults(self) -> Mapping[str, Any]:
        """Sampling settings that the model's authors recommend, by OpenAI's or vLLM's names."""
        recommended = self._network.generation_config.to_diff_dict()
        return {name: recommended[name] for name in _DEFAULTS if recommended.get(name) is not None}

    def _weights(self, mixes: Sequence[lora.Mix]) -> Tensor:
        """(tokens, adapters), by looking up each mix among those that differ."""
        known = list(dict.fromkeys(mixes))
        most = max(map(len, known))
        table = torch.tensor([mix or (0.0,) * most for mix in known], device=self.device)
        place = {mix: number for number, mix in enumerate(known)}
        return table[self._tensor([place[mix] for mix in mixes])]

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)


def load_model(folder: Path, *, adapters: Sequence[Path] = (), device: str = "cpu", dtype: str = "float32") -> Model:
    """Loads a model folder and the adapters, from safetensors alone and without the network.

    Raises:
        UnsupportedModel: the folder holds no causal LM that this engine can run.
        lora.AdapterUnusable: an adapter is no plain LoRA of this model.
    """
    if not (folder / "config.json").is_file():
        raise UnsupportedModel(f"{folder} holds no config.json; a model is a folder as transformers saves it")
    transformers.AttentionInterface.register(NAME, attend)
    with quiet_loading():
        network = _network(folder, dtype)
        tokenizer = _tokenizer(folder)
    gates = lora.install(network, adapters)
    torch.nn.Module.to(network, torch.device(device))
    model = Model(network.eval().requires_grad_(False), gates, tokenizer)
    _check_runs(folder, model, layers=network.config.get_text_config().num_hidden_layers)
    return model


def _network(folder: Path, dtype: str) -> transformers.PreTrainedModel:
    try:
        return transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=NAME,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (ValueError, OSError) as exc:
        raise UnsupportedModel(f"{folder} cannot be loaded as a causal language model: {exc}") from exc


def _tokenizer(folder: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not isinstance(tokenizer, transformers.PreTrainedTokenizerFast):
        raise UnsupportedModel(f"{folder} has a tokenizer without tokenizer.json, which the embedded engine needs")
    return tokenizer


def _check_runs(folder: Path, model: Model, *, layers: int) -> None:
    """Reads two tokens, which also warms up; a layer that does not attend through us would answer wrongly."""
    step = Step(
        slots=SlotCache(),
        positions=torch.empty(0, dtype=torch.long, device=model.device),
        stretches=[Stretch(PromptCache(2), start=0, count=2)],
        span=0,
    )
    tokens = Tokens(ids=[0, 0], positions=[0, 1], mixes=[(), ()], keep=[1])
    try:
        with torch.inference_mode():
            model.logits(tokens, step)
    except UnsupportedModel as exc:
        raise UnsupportedModel(f"{folder}: {exc}") from exc
    except TypeError as exc:
        raise UnsupportedModel(f"{folder}: its architecture does not take our attention: {exc}") from exc
    if step.layers_seen != layers:
        raise UnsupportedModel(
            f"{folder}: {step.layers_seen} of its {layers} layers attend in a way that can be batched here; "
            "serve it with vLLM"
        )


def _context(config: Any) -> int:
    """Raises `UnsupportedModel` for a model that counts no positions, as those without attention do not."""
    settings = config.get_text_config().to_dict()
    if settings.get("max_position_embeddings") is None:
        raise UnsupportedModel(f"a {config.model_type} states no max_position_embeddings; serve it with vLLM")
    return int(settings["max_position_embeddings"])


def _stop_ids(network: transformers.PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    configured = network.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(id for id in [*ids, tokenizer.eos_token_id] if id is not None)
