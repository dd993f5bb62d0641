"""The model card: a header that the hub can read, and the manifest's facts as text."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rheostat.cli import main
from rheostat_server import demo, serve
from rheostat_server.adapters import digest_of_base, load_adapters
from rheostat_server.contract.manifest import (
    BaseModelReference,
    ControlTextSpec,
    DialLevels,
    EvaluationRow,
    Manifest,
    TrainingRecord,
    read_manifest,
)
from rheostat_server.settings import Settings
from rheostat_training.report import RunFacts, model_card, write_model_card
from tests.training.report.conftest import HOSTILE, curve

DIGEST = "sha256:" + "0123456789abcdef" * 4


def manifest(facts: RunFacts | None = None, *, base: str = "example-org/base-1B", **changes: Any) -> Manifest:
    found = facts.modes["adapter"]["oracle"] if facts else None
    rows = [
        EvaluationRow(mode="adapter", dial=dial, judge="oracle", prompts=found.prompts, metrics=found.metrics(dial))
        for dial in ("safety", "helpfulness")
        if found
    ]
    return Manifest(
        name="quick-control",
        base_model=BaseModelReference(name=base, revision="main", digest=DIGEST),
        dials={
            "safety": DialLevels(levels=[0.0, 0.5, 1.0], attainable=(0.07, 0.97)),
            "helpfulness": DialLevels(levels=[0.0, 1.0]),
        },
        control_text=ControlTextSpec(template="[helpful={helpfulness:.2f}][harmless={safety:.2f}]"),
        training=TrainingRecord(
            method="moec+exmate",
            settings={"alpha": 0.05},
            data_digests={"examples": DIGEST},
            software={"torch": "2.13.0"},
        ),
        evaluation=rows,
        licence="Apache-2.0",
        weights_digest=DIGEST,
    ).model_copy(update=changes)


def header(card: str) -> dict[str, Any]:
    [before, text, _] = card.split("---\n", 2)
    assert before == ""
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_header_is_what_the_hub_reads() -> None:
    assert header(model_card(manifest())) == {
        "base_model": "example-org/base-1B",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "rheostat", "controllable-generation", "safety", "helpfulness"],
    }


def test_a_licence_that_the_hub_has_no_name_for_keeps_its_own() -> None:
    found = header(model_card(manifest(licence="Our Own Licence: 2")))
    assert (found["license"], found["license_name"]) == ("other", "Our Own Licence: 2")


@pytest.mark.parametrize("base", ["/data/models/base", "base", "a b", "x; rm -rf y", "x\n---\n# y", "../up"])
def test_a_base_model_that_the_hub_cannot_name_is_in_no_header_and_in_no_command(base: str) -> None:
    card = model_card(manifest(base=base))
    assert "base_model" not in header(card)
    assert "rheostat serve BASE_MODEL --adapter ./quick-control" in card
    assert "`BASE_MODEL` for that of the base model" in card


def test_the_shipped_card_is_that_of_the_shipped_manifest() -> None:
    folder = demo.adapter_folder()
    assert (folder / "README.md").read_text() == model_card(read_manifest(folder))


def test_the_shipped_cards_command_serves_the_shipped_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (demo.adapter_folder() / "README.md").read_text()
    [command] = [line for line in card.splitlines() if line.startswith("rheostat serve")]
    asked: list[Settings] = []
    (tmp_path / "demo-control").symlink_to(demo.adapter_folder())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rheostat_server.__main__.configure_logging", lambda level: None)
    monkeypatch.setattr("rheostat_server.__main__.start", lambda settings, engine_flags: asked.append(settings))
    with pytest.raises(SystemExit) as ended:
        main(command.split()[1:])
    assert ended.value.code == 0
    [settings] = asked
    adapters = load_adapters(serve.adapter_folders(settings), base_digest=digest_of_base(demo.base_folder()))
    assert adapters.ids == [read_manifest(demo.adapter_folder()).id]
    assert (serve.engine_for(settings), serve.served_name(settings)) == ("embedded", "demo")
    assert 'pip install ".[embedded]"' in card
    assert "base_model" not in header(card)


def test_the_card_says_how_to_ask() -> None:
    card = model_card(manifest())
    assert "rheostat serve example-org/base-1B --adapter ./quick-control" in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    [line] = [line for line in code.splitlines() if "extra_body" in line]
    asked = json.loads(line.strip().removeprefix("extra_body=").removesuffix(","))
    assert asked == {"control": {"safety": 0.9, "helpfulness": 0.6, "adapter": "quick-control"}}


def test_the_card_shows_dials_control_text_settings_and_digests() -> None:
    card = model_card(manifest())
    assert "| safety | 0, 0.5, 1 | 0.070 to 0.970 |" in card
    assert "| helpfulness | 0, 1 | not measured |" in card
    assert "&#91;helpful=0.60&#93;&#91;harmless=0.90&#93;" in card
    assert "| alpha | <code>0.05</code> |" in card
    assert f"| examples | <code>{DIGEST}</code> |" in card
    assert "quick-control@0123456789ab" in card
    assert "torch 2.13.0." in card


def test_the_cards_figures_are_the_manifests(facts: RunFacts) -> None:
    made = manifest(facts)
    card = model_card(made)
    for row in made.evaluation:
        [line] = [line for line in card.splitlines() if line.startswith(f"| adapter | oracle | {row.dial} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")][3:]
        for name, text in zip(
            ("mP", "MP", "Err", "BT", "BT_all", "cross_talk", "tau", "well_formed"), cells, strict=False
        ):
            words = text.replace("(", "").replace(")", "").replace("to", "").split()
            wanted = [row.metrics[key] for key in (name, f"{name}_low", f"{name}_high")]
            assert [float(word) for word in words] == pytest.approx(wanted, abs=0.0005)
        assert cells[-1] == "10"


def test_figures_without_intervals_are_shown_without() -> None:
    row = EvaluationRow(mode="adapter", dial="safety", judge="oracle", prompts=3, metrics={"MP": 0.5})
    card = model_card(manifest(evaluation=[row]))
    assert "| mode | judge | dial | MP | prompts |" in card
    assert "| adapter | oracle | safety | 0.500 | 3 |" in card


def test_what_is_missing_is_said() -> None:
    card = model_card(manifest())
    assert "Not evaluated." in card
    assert "Not calibrated" in card


def test_the_calibrations_range_is_shown() -> None:
    card = model_card(manifest(calibration={"adapter": {"safety": curve(0.1, 0.3, 0.9)}}))
    assert "| adapter | safety | 0.100 to 0.900 | scorers | 50 |" in card
    assert "Not calibrated" not in card


def test_markup_in_the_manifest_stays_text() -> None:
    made = manifest(
        training=TrainingRecord(method=HOSTILE, settings={HOSTILE: HOSTILE}, data_digests={HOSTILE: DIGEST})
    )
    card = model_card(made)
    assert "<script" not in card
    assert "](javascript" not in card
    assert card.count("```") == model_card(manifest()).count("```")


def test_the_card_is_the_folders_readme(tmp_path: Path) -> None:
    path = write_model_card(manifest(), tmp_path)
    assert path == tmp_path / "README.md"
    assert path.read_text() == model_card(manifest())
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
