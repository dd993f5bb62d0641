"""A tiny random Llama and two LoRA adapters for it, made from a seed in seconds: what every test of an engine runs on.

`python -m tests.tiny FOLDER` writes them to FOLDER/base, FOLDER/tiny-warm and FOLDER/tiny-cold.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rheostat_server.contract import digest
from rheostat_server.contract.control_text import DEFAULT_TEMPLATE
from rheostat_server.contract.manifest import (
    BaseModelReference,
    ControlTextSpec,
    DialLevels,
    Manifest,
    TrainingRecord,
    write_manifest,
)

BASE_NAME: Final = "tiny"
ADAPTER_SEEDS: Final = {"tiny-warm": 11, "tiny-cold": 12}
MAX_POSITIONS: Final = 1024
LINEAR_LAYERS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

_SEED: Final = 7
_VOCABULARY: Final = 512
_PAD, _EOS = "<pad>", "<end>"
_ROLES: Final = ("<system>", "<user>", "<assistant>", "<tool>")
_SPECIAL: Final = (_PAD, _EOS, *_ROLES)
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% elif message['content'] %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
_CORPUS: Final = (
    "please tell me how to keep a small garden in the city and what to plant there in spring",
    "you can start with herbs and beans because they grow fast and need little water or care",
    "never mix these two things at home, it is not safe, and ask someone who knows the work",
    "here is what I would do first: read the label, open the window, wear gloves, and wait",
    "yes, that is a good question; no, I do not think that it would help you very much today",
    "a long answer has many words, a short answer has few, and both of them may be right",
    "the weather is warm in the morning, cold at night, and often wet when the wind turns west",
)

_STEADY: Final = 0
"""The channel of the residual stream that is alike for every token; see `_never_say`."""


@dataclass(frozen=True, slots=True)
class TinyAdapter:
    """A LoRA folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id


def build_base(folder: Path) -> Path:
    """Writes the base model: it answers in ASCII words that mean nothing, and ends hardly ever of itself."""
    tokenizer = _tokenizer()
    model = _model(tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_adapter(folder: Path, *, base: Path, name: str, seed: int) -> TinyAdapter:
    """Writes a LoRA of rank 4 on every linear layer, strong enough to change any answer, and its `control.json`."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR_LAYERS, task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.08)
            if "o_proj" in parameter_name or "down_proj" in parameter_name:
                parameter.data[_STEADY] = 0.0
    model.save_pretrained(str(folder), save_embedding_layers=False)
    manifest = _manifest(folder, base, name)
    write_manifest(manifest, folder)
    return TinyAdapter(folder, manifest)


def build_adapters(folder: Path, *, base: Path) -> list[TinyAdapter]:
    return [build_adapter(folder / name, base=base, name=name, seed=seed) for name, seed in ADAPTER_SEEDS.items()]


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_EOS,
        pad_token=_PAD,
        additional_special_tokens=list(_ROLES),
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def _model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(_SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=MAX_POSITIONS,
            initializer_range=0.25,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    _never_say(model, list(_unreadable_tokens(tokenizer)))
    return model.eval()


def _never_say(model: LlamaForCausalLM, tokens: list[int]) -> None:
    """Makes `tokens` too unlikely to be met: a channel that no layer writes to works as a bias."""
    with torch.no_grad():
        model.model.embed_tokens.weight[:, _STEADY] = 3.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[_STEADY] = 0.0
            layer.mlp.down_proj.weight[_STEADY] = 0.0
        model.lm_head.weight[:, _STEADY] = 0.0
        model.lm_head.weight[tokens, _STEADY] = -200.0


def _unreadable_tokens(tokenizer: PreTrainedTokenizerFast) -> Iterator[int]:
    """Special tokens, and those whose bytes are no printable ASCII: half a character differs whole and streamed."""
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token], skip_special_tokens=True)
        if not text or not text.isascii() or not text.isprintable():
            yield token


def _manifest(folder: Path, base: Path, name: str) -> Manifest:
    levels = DialLevels(levels=[0.0, 0.5, 1.0])
    return Manifest(
        name=name,
        base_model=BaseModelReference(name=BASE_NAME, digest=digest.base_model_digest(base)),
        dials={"safety": levels, "helpfulness": levels},
        control_text=ControlTextSpec(template=DEFAULT_TEMPLATE),
        training=TrainingRecord(method="none, random weights", data_digests={}),
        licence="Apache-2.0",
        weights_digest=digest.adapter_digest(folder),
    )


def main() -> None:
    folder = Path(sys.argv[1])
    base = build_base(folder / "base")
    for adapter in build_adapters(folder, base=base):
        print(f"{adapter.id}={adapter.folder}")


if __name__ == "__main__":
    main()
