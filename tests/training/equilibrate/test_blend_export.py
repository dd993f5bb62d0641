"""Blends as training writes them: the server takes and serves them; what must not be blended is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from rheostat_server.blending.store import load_blend
from rheostat_server.contract.blend import WeightCurve, read_blend
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.digest import base_model_digest
from rheostat_server.engines.concatenated import write_concatenated
from rheostat_training.adapter_check import NotServable
from rheostat_training.equilibrate.blend_export import BlendFacts, BlendPart, export_blend, rising
from rheostat_training.export import ExportFacts, export_adapter
from rheostat_training.models import load_base
from tests.training.equilibrate.patched import patch
from tests.training.equilibrate.routed import random_expert
from tests.training.tiny_fit import tiny_llama

FACTS = BlendFacts(
    name="experts",
    base_name="tiny",
    method="midpo",
    data_digests={"pairs": f"sha256:{'0' * 64}"},
    settings={"beta": 0.1, "target_modules": ("down_proj",)},
)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base's folder, two experts and a safety patch."""
    folder = tmp_path_factory.mktemp("made")
    torch.set_num_threads(1)
    base = tiny_llama(tiny_model)
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    for seed, name in enumerate(("safe", "helpful")):
        random_expert(tiny_llama(tiny_model), folder / name, seed)
    patch(tiny_model, folder / "patch")
    return folder


def parts(made: Path) -> list[BlendPart]:
    return [
        BlendPart("safe", made / "safe", rising("safety", middle=0.3)),
        BlendPart("helpful", made / "helpful", rising("helpfulness", 0.8)),
        BlendPart("patch", made / "patch/adapter", 0.5),
    ]


def test_the_server_takes_it_with_the_dials_that_set_its_weights(made: Path, tmp_path: Path) -> None:
    manifest = export_blend(parts(made), made / "base", tmp_path / "blend", FACTS)
    blend = load_blend(tmp_path / "blend", base_digest=base_model_digest(made / "base"))
    assert blend.manifest == manifest == read_blend(tmp_path / "blend")
    assert manifest.dials == ["safety", "helpfulness"]
    assert manifest.control_text is None
    assert manifest.weights_at(Dials(safety=0.5, helpfulness=0.5)) == {"safe": 0.3, "helpful": 0.4, "patch": 0.5}
    assert manifest.weights_at(Dials(safety=1.0, helpfulness=0.0)) == {"safe": 1.0, "helpful": 0.0, "patch": 0.5}
    assert manifest.training.settings == {"beta": 0.1, "target_modules": ["down_proj"]}
    assert {path.name for path in (tmp_path / "blend/components").iterdir()} == {"safe", "helpful", "patch"}


def test_what_is_served_at_a_point_is_the_base_and_the_weighted_sum(made: Path, tmp_path: Path) -> None:
    export_blend(parts(made), made / "base", tmp_path / "blend", FACTS)
    point = load_blend(tmp_path / "blend", base_digest=None).at(Dials(safety=0.5, helpfulness=1.0), {})
    write_concatenated(point.parts, tmp_path / "sum")
    served = PeftModel.from_pretrained(load_base(made / "base").model, tmp_path / "sum").eval()
    summed = load_base(made / "base").model
    weights = {"safe": 0.3, "helpful": 0.8, "patch": 0.5}
    for part in parts(made):
        adapted = PeftModel.from_pretrained(summed, part.adapter)
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.scaling["default"] *= weights[part.name]
        summed = adapted.merge_and_unload()
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        found, wanted = served(input_ids=ids).logits, summed(input_ids=ids).logits
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(found, load_base(made / "base").model(input_ids=ids).logits, atol=1e-2)


def test_an_export_is_whole_or_not_there_and_takes_the_place_of_one_before(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "blend"
    export_blend(parts(made), made / "base", out, FACTS)
    with pytest.raises(ValueError, match="names must differ"):
        export_blend([*parts(made), parts(made)[0]], made / "base", out, FACTS)
    with pytest.raises(ValueError, match="name"):
        export_blend([replace(parts(made)[0], name="../elsewhere")], made / "base", out, FACTS)
    assert {path.name for path in tmp_path.iterdir()} == {"blend"}
    assert len(read_blend(out).components) == 3
    export_blend(parts(made)[:1], made / "base", out, replace(FACTS, grid=3))
    assert [part.name for part in read_blend(out).components] == ["safe"]
    assert {path.name for path in (out / "components").iterdir()} == {"safe"}


def test_a_weight_below_0_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a number from 0 to 2"):
        WeightCurve(dial="safety", points=[(0.0, -1.0), (1.0, 1.0)])
    turned = replace(parts(made)[2], weight=-0.5)
    with pytest.raises(ValueError, match=r"the weight of 'patch' is -\d"):
        export_blend([parts(made)[0], turned], made / "base", tmp_path / "blend", FACTS)
    assert not (tmp_path / "blend").exists()


def test_a_blend_whose_weights_no_dial_sets_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no weight is set by a dial"):
        export_blend(parts(made)[2:], made / "base", tmp_path / "blend", FACTS)
    with pytest.raises(ValueError, match="parts are empty"):
        export_blend([], made / "base", tmp_path / "blend", FACTS)


def with_control_text(made: Path, out: Path, template: str, base: Path) -> Path:
    levels = {"safety": [0.0, 1.0], "helpfulness": [0.0, 1.0]}
    facts = ExportFacts("dialled", "tiny", "dpo", levels, {}, template=template)  # type: ignore[arg-type]
    export_adapter(made / "safe", base, out, facts)
    return out


def test_the_control_text_of_an_adapter_is_that_of_its_blend(made: Path, tmp_path: Path) -> None:
    template = "[h={helpfulness:.2f}][s={safety:.2f}]"
    dialled = with_control_text(made, tmp_path / "dialled", template, made / "base")
    manifest = export_blend(
        [BlendPart("dialled", dialled, 1.0), *parts(made)[1:]], made / "base", tmp_path / "blend", FACTS
    )
    assert manifest.control_text is not None
    assert manifest.control_text.template == template
    load_blend(tmp_path / "blend", base_digest=None)
    other = with_control_text(made, tmp_path / "other", "[help={helpfulness:.2f}][safe={safety:.2f}]", made / "base")
    both = [BlendPart("dialled", dialled, 1.0), BlendPart("other", other, 1.0)]
    with pytest.raises(ValueError, match="a blend has one"):
        export_blend(both, made / "base", tmp_path / "both", FACTS)


def test_an_adapter_of_another_base_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "base", tmp_path / "elsewhere")
    tokenizer = tmp_path / "elsewhere/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    template = "[h={helpfulness:.2f}][s={safety:.2f}]"
    dialled = with_control_text(made, tmp_path / "dialled", template, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"base_model.digest is sha256"):
        export_blend([BlendPart("dialled", dialled, 1.0)], made / "base", tmp_path / "blend", FACTS)


def test_an_adapter_that_is_none_for_vllm_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "safe", tmp_path / "dora")
    config = tmp_path / "dora/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_dora": True}))
    with pytest.raises(NotServable, match="use_dora"):
        export_blend([BlendPart("dora", tmp_path / "dora", rising("safety"))], made / "base", tmp_path / "b", FACTS)


def test_a_rising_weight_may_not_fall() -> None:
    assert rising("safety").points == [(0.0, 0.0), (1.0, 1.0)]
    assert rising("safety", 0.4).at(Dials(safety=0.5, helpfulness=0.0)) == 0.2
    with pytest.raises(ValueError, match="must only rise or only fall"):
        rising("safety", 0.2, middle=0.4)
