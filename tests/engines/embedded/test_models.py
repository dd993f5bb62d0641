"""Model folders other than the demo's: served as transformers would, or refused when the engine starts."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from rheostat_server.engines.embedded import EmbeddedEngine
from rheostat_server.engines.embedded.attention import UnsupportedModel
from tests.engines.embedded.asking import LONG, SHORT, Reference, request, text_of, tokens_of

SIZES: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
}


def save(config: transformers.PreTrainedConfig, folder: Path, tokenizer_of: Path) -> Path:
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config = transformers.GenerationConfig(eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16), id="grouped heads, Qwen3"),
        pytest.param(
            transformers.MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=6), id="a window, Mistral"
        ),
        pytest.param(transformers.GPTNeoXConfig(**SIZES), id="one head each, GPT-NeoX"),
    ],
)
async def test_other_architectures_answer_as_generate_does(
    config: transformers.PreTrainedConfig, tiny_model: Path, tmp_path: Path
) -> None:
    folder = save(config, tmp_path, tiny_model)
    engine = EmbeddedEngine.load(folder, served_name="tiny", threads=1)
    reference = Reference.load(folder)
    texts = [SHORT, LONG[:150], "wait"]
    answers = await asyncio.gather(*(engine.complete(request(text, temperature=0, logprobs=True)) for text in texts))
    expected = [[reference.tokenizer.decode([id]) for id in reference.generate(text)] for text in texts]
    assert [tokens_of(answer) for answer in answers] == expected
    await engine.close()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8), "soft caps"),
        (transformers.MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2), "max_position_embeddings"),
        (transformers.Qwen3NextConfig(**SIZES, num_key_value_heads=2, head_dim=8), "attend"),
    ],
)
def test_a_model_whose_attention_we_do_not_compute_is_refused_at_start(
    config: transformers.PreTrainedConfig, reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        EmbeddedEngine.load(save(config, tmp_path, tiny_model), served_name="tiny")


def test_a_folder_without_a_model_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"no config\.json"):
        EmbeddedEngine.load(tmp_path, served_name="tiny")


def test_pickled_weights_are_refused_at_start(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match="safetensors"):
        EmbeddedEngine.load(tmp_path, served_name="tiny")


async def test_sampling_settings_that_the_authors_recommend_are_defaults(tiny_model: Path, tmp_path: Path) -> None:
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    transformers.GenerationConfig(do_sample=True, top_k=1, eos_token_id=1).save_pretrained(tmp_path)
    engine = EmbeddedEngine.load(tmp_path, served_name="tiny", threads=1)
    assert await text_of(engine) == await text_of(engine, temperature=0)
    assert await text_of(engine, top_k=0, seed=1) != await text_of(engine, temperature=0)
    await engine.close()


def test_the_engines_package_does_not_bring_torch() -> None:
    code = "import sys, rheostat_server.engines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
