"""An adapter is trained on any family of models, on the layers that vLLM serves, and says in vLLM what it says here."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from rheostat_training.adapter_check import NO_LORA_IN_VLLM, NotServable, check_folder
from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.fit import FitPlan, fit
from rheostat_training.lora import linear_layers, save_adapter, with_lora
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from tests.engines.vllm.server import run_with_vllm
from tests.training.architectures import ARCHITECTURES, Architecture
from tests.training.tiny_fit import HIGH, tiny_examples, tiny_prompts

PLAN = FitPlan(rank=4, lora_alpha=16, steps=3, batch_rows=4, warmup_steps=0, learning_rate=3e-2, clip=100)

Said = tuple[tuple[torch.Tensor, torch.Tensor], list[dict[str, float]]]
"""[vocabulary] here, before and under the adapter, and in vLLM the likeliest by id: log probabilities all."""

each = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.model_type)


def trained(architecture: Architecture, tokenizer: Path, folder: Path) -> LoadedModel:
    """The base, its files in `folder/base`, its adapter in `folder/adapter`."""
    base = architecture.build(tokenizer, folder / "base")
    fit(base, tiny_prompts(), tiny_examples(), PLAN, folder, report_to="none", progress=Progress.silent())
    return base


@each
def test_a_fit_trains_the_layers_that_vllm_serves(tiny_model: Path, tmp_path: Path, architecture: Architecture) -> None:
    trained(architecture, tiny_model, tmp_path)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["target_modules"] == sorted(architecture.targets)
    check_folder(tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert len(weights) == 2 * 2 * len(architecture.targets)
    assert all(value.abs().max() > 0 for value in weights.values())


def test_a_model_without_linear_layers_is_refused_before_it_is_trained() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16))
    with pytest.raises(NotServable, match="'gpt2' has no linear layers"):
        linear_layers(model)
    with pytest.raises(NotServable, match="a GPT2LMHeadModel; vLLM serves no adapter"):
        with_lora(model, PLAN, "base")


def test_a_pattern_that_names_the_layers_is_saved_as_it_is(tmp_path: Path, model: LoadedModel) -> None:
    pattern = r".*\.(q|v)_proj"
    adapted = get_peft_model(model.model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=pattern))
    saved = save_adapter(adapted, tmp_path / "adapter")
    assert json.loads((saved / "adapter_config.json").read_text())["target_modules"] == pattern


def test_layers_that_choose_experts_are_left_alone() -> None:
    class Routed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("gate", "wg", "classifier", "up_proj"):
                self.add_module(name, torch.nn.Linear(2, 2))

        def get_output_embeddings(self) -> None:
            return None

    assert linear_layers(Routed()) == ["up_proj"]


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed")
def test_the_architectures_without_adapters_are_those_of_vllms_registry(tmp_path: Path) -> None:
    code = (
        "import json, pathlib, sys\n"
        "from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as causal\n"
        "from vllm.model_executor.models.interfaces import supports_lora\n"
        "from vllm.model_executor.models.registry import ModelRegistry as vllms\n"
        "def refused(name):\n"
        "    try:\n"
        "        return not supports_lora(vllms.models[name].load_model_cls())\n"
        "    except ImportError:  # a model of pictures too, whose library is not installed\n"
        "        return False\n"
        "names = {n for names in causal.values() for n in ([names] if isinstance(names, str) else names)}\n"
        "found = sorted(name for name in names & set(vllms.models) if refused(name))\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps(found))"
    )
    run_with_vllm(["-c", code, tmp_path / "found.json"], log=tmp_path / "log")
    assert json.loads((tmp_path / "found.json").read_text()) == sorted(NO_LORA_IN_VLLM)


def runs(architecture: Architecture) -> bool:
    return torch.cuda.is_available() or not architecture.has_experts


@pytest.fixture(scope="module")
def said(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What each architecture says, by its name."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("architectures")
    here = {
        each.model_type: said_here(each, tiny_model, root / each.model_type) for each in filter(runs, ARCHITECTURES)
    }
    run_with_vllm(["-m", "tests.training.architectures", *(root / name for name in here)], log=root / "log")
    return {name: (told, json.loads((root / name / "found.json").read_text())) for name, told in here.items()}


def said_here(architecture: Architecture, tokenizer: Path, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaves in `folder` what vLLM is asked."""
    base = trained(architecture, tokenizer, folder)
    [ids] = token_ids(base.tokenizer, [prompt_text(base.tokenizer, tiny_prompts()["p0"].messages, HIGH)])
    (folder / "ids.json").write_text(json.dumps(ids))
    before = first_token(base.model, ids)
    return before, first_token(PeftModel.from_pretrained(base.model, folder / "adapter"), ids)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="no build of vLLM is installed")
@each
def test_the_adapter_says_in_vllm_what_it_says_in_transformers(
    request: pytest.FixtureRequest, architecture: Architecture
) -> None:
    if not runs(architecture):
        pytest.skip("vLLM 0.32 runs experts by Triton as soon as it serves adapters, and so on a GPU alone")
    said: dict[str, Said] = request.getfixturevalue("said")
    (before, after), answers = said[architecture.model_type]
    for wanted, answer in zip((before, after), answers, strict=True):
        reached = {int(token): value for token, value in answer.items()}
        assert len(reached) >= 32
        assert max(reached, key=reached.__getitem__) == int(wanted.argmax())
        for token, value in reached.items():
            assert value == pytest.approx(wanted[token].item(), abs=2e-3)
    assert (before - after).abs().max() > 0.1


def first_token(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """[vocabulary], log probabilities of the first token of an answer."""
    with torch.no_grad():
        logs: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    return logs
