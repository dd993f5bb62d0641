"""docs/scorers.md: its files are read as they stand, and it tells every kind with every field, and every preset."""

import re
from pathlib import Path
from typing import Annotated, Any, Final, cast, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from rheostat_server.scorers.build import BUILDERS
from rheostat_server.scorers.classifier_scorer import load_classifier
from rheostat_server.scorers.presets import PRESETS
from rheostat_server.scorers.spec import CheckSpec, ScorersFile, ScorerSpec, ShrinkSpec
from rheostat_server.scorers.spec.classifier import ClassifierSpec, HeadSpec
from rheostat_server.scorers.spec.common import CommonSpec, ModelSpec
from rheostat_server.scorers.yes_no import Question
from rheostat_training.config import ScorerFolders, parse_config
from rheostat_training.scorers.labelled import read_preferences, read_refusals
from tests.scorers.tiny_models import DIALOGUES, build_classifier

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text()


def specs_of(union: Any) -> list[type[BaseModel]]:
    """The specs of a union of unions."""
    if isinstance(union, type):
        return [union]
    options = get_args(union)[:1] if get_origin(union) is Annotated else get_args(union)
    return [spec for option in options for spec in specs_of(option)]


SPECS: Final = specs_of(ScorerSpec)
"""The spec of each kind; of a remote judge, of each API."""


def words_of(spec: type[BaseModel], field: str) -> tuple[Any, ...]:
    """The words that a field of a spec may be."""
    return get_args(spec.model_fields[field].annotation) if field in spec.model_fields else ()


def kind_of(spec: type[BaseModel]) -> str:
    [kind] = words_of(spec, "kind")
    return str(kind)


def section(kind: str) -> str:
    """What the page says of a kind under its own heading."""
    [found] = [part for part in PAGE.split("\n## ")[1:] if f"`{kind}`" in part.splitlines()[0]]
    return found


def section_of_the_file() -> str:
    [found] = re.findall(r"^## The operator's file$(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


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
    assert kinds == {*BUILDERS} - {"preference"}


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


def test_every_kind_of_the_code_is_looked_for() -> None:
    assert {kind_of(spec) for spec in SPECS} == {*BUILDERS}
    assert {api for spec in SPECS for api in words_of(spec, "api")} == {"classify", "score", "chat", "guard"}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_kind_is_told_with_every_field_of_its_own(spec: type[BaseModel]) -> None:
    shared = {("chat",): "label_read", ("guard",): "guard"}.get(words_of(spec, "api"))
    told = section(kind_of(spec)) + (section(shared) if shared else "")
    own = {*spec.model_fields} - {*CommonSpec.model_fields, *ModelSpec.model_fields, "kind"}
    assert [name for name in sorted(own) if f"`{name}`" not in told] == []
    assert [
        word for field in ("api", "format", "wording") for word in words_of(spec, field) if f"`{word}`" not in told
    ] == []


def test_what_every_kind_takes_and_the_file_itself_are_told_in_tables() -> None:
    rows = {
        name for row in re.findall(r"^\| (`.*?`) \|", section_of_the_file(), re.MULTILINE) for name in row.split(", ")
    }
    wanted = {*CommonSpec.model_fields, *ModelSpec.model_fields, *ScorersFile.model_fields}
    assert {f"`{name}`" for name in wanted} - rows == set()
    inner = {*ShrinkSpec.model_fields, *CheckSpec.model_fields}
    assert [name for name in inner if f"`{name}`" not in section_of_the_file()] == []


def test_the_parts_of_heads_and_of_questions_are_told() -> None:
    assert [name for name in HeadSpec.model_fields if f"`{name}`" not in section("classifier")] == []
    assert [name for name in Question.model_fields if f"`{name}`" not in section("label_read")] == []


def test_the_defaults_of_what_every_kind_takes_are_those_of_the_code() -> None:
    for name in ("weight", "max_batch", "max_queue", "deadline", "device", "batch_rows"):
        default = ModelSpec.model_fields[name].default
        shown = f"{default:g}" if isinstance(default, float) else default
        assert re.search(rf"^\| `{name}` \| `?{shown}`? \|", PAGE, re.MULTILINE), name


def test_every_preset_is_told_with_its_model_dial_licence_and_note() -> None:
    for name, preset in PRESETS.items():
        [row] = re.findall(rf"^\| `{name}` .*$", PAGE, re.MULTILINE)
        assert {f"`{preset.settings['model']}`", preset.settings["dial"], preset.licence} <= set(
            row.strip("| ").split(" | ")
        )
        assert f"- `{name}`: {preset.note}" in PAGE
