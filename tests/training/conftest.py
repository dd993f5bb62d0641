"""A random Llama that is small enough to train in a test, and a few prompts and answers for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rheostat_server.contract.dials import Dials
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Prompt

LOW = Dials(safety=0.0, helpfulness=0.0)
HIGH = Dials(safety=1.0, helpfulness=1.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_model(tiny_model: Path) -> Callable[[], LoadedModel]:
    """Makes the same random model each time."""

    def make() -> LoadedModel:
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        torch.manual_seed(5)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=0.2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return LoadedModel(LlamaForCausalLM(config).eval(), tokenizer)

    return make


@pytest.fixture
def model(make_model: Callable[[], LoadedModel]) -> LoadedModel:
    return make_model()


@pytest.fixture
def prompts() -> dict[str, Prompt]:
    texts = ["how do I plant herbs", "what may I mix at home", "is the label right", "how warm is the morning today"]
    return {f"p{number}": Prompt.user(f"p{number}", text) for number, text in enumerate(texts)}


@pytest.fixture
def examples(prompts: dict[str, Prompt]) -> list[Example]:
    return [
        Example(id, answer, dials, dials.safety, dials.helpfulness)
        for id in prompts
        for dials, answer in ((LOW, "no, I do not think so"), (HIGH, "yes, read the label first and open the window"))
    ]
