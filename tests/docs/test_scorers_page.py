"""docs/scorers.md: its files are read as they stand, and it tells every field and preset."""

import re
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from rheostat_server.scorers.classifier_scorer import load_classifier
from rheostat_server.scorers.presets import PRESETS
from rheostat_server.scorers.spec import ScorersFile
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_server.scorers.spec.text import PreferenceSpec, RefusalSpec
from rheostat_training.config import ScorerFolders, parse_config
from rheostat_training.scorers.labelled import read_preferences, read_refusals
from tests.scorers.tiny_models import DIALOGUES, build_classifier

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text()


def blocks() -> list[dict[str, Any]]:
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


def test_the_rows_of_label_files_are_read(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jsonl" for number in range(3)]
    for path, block in zip(paths, re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE), strict=True):
        path.write_text(block)
    refusals, dialogues, judged = paths
    assert [row.label for row in read_refusals([refusals]).rows] == [1]
    [pair] = read_preferences([dialogues]).rows
    [other] = read_preferences([judged]).rows
    assert pair.chosen == other.chosen
    assert other.models == ("small-1", "small-2")


def test_the_configuration_names_scorers_and_judges() -> None:
    [block] = [block for block in blocks() if "score" in block]
    config = parse_config({"prompts": {"source": {"source": "demo"}}, **block})
    assert isinstance(config.score.scorers, ScorerFolders)
    assert [*config.evaluate.judges] == ["refusals"]


def test_every_file_of_scorers_is_one() -> None:
    files = [ScorersFile.model_validate(block) for block in blocks() if "scorers" in block]
    kinds = {spec.kind for file in files for spec in file.scorers}
    assert kinds == {"classifier", "refusal", "guard", "label_read", "remote"}


def test_what_is_measured_by_the_pages_code_is_a_scale_that_spreads_these_answers(tmp_path: Path) -> None:
    codes = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    [code] = [code for code in codes if "def measured" in code]
    defined: dict[str, Any] = {}
    exec(code, defined)
    model = build_classifier(tmp_path)
    found = defined["measured"](model, DIALOGUES)
    for scale in ({"quantiles": found.pop("quantiles")}, found):
        spec = ClassifierSpec(kind="classifier", model=str(model), dial="safety", scale=cast(Any, scale))
        levels = [scores.safety for scores in load_classifier(spec).scores(DIALOGUES)]
        assert min(level for level in levels if level is not None) < 0.4
        assert max(level for level in levels if level is not None) > 0.6


def test_every_field_and_every_kind_is_told() -> None:
    for spec in (ClassifierSpec, RefusalSpec, PreferenceSpec):
        assert f"`{get_args(spec.model_fields['kind'].annotation)[0]}`" in PAGE
        assert [name for name in spec.model_fields if f"`{name}`" not in PAGE] == []


def test_every_preset_is_told_with_its_model_dial_licence_and_note() -> None:
    for name, preset in PRESETS.items():
        [row] = re.findall(rf"^\| `{name}` .*$", PAGE, re.MULTILINE)
        assert {f"`{preset.settings['model']}`", preset.settings["dial"], preset.licence} <= set(
            row.strip("| ").split(" | ")
        )
        assert f"- `{name}`: {preset.note}" in PAGE
