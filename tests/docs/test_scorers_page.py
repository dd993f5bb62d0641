"""docs/scorers.md: its rows of labels are read and its configuration is one, as they stand."""

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter

from rheostat_server.scorers.spec import AnyRemoteSpec, LabelReadSpec
from rheostat_training.config import ScorerFolders, parse_config
from rheostat_training.scorers.labelled import read_preferences, read_refusals

PAGE = (Path(__file__).parents[2] / "docs" / "scorers.md").read_text()

Spec = Annotated[LabelReadSpec | AnyRemoteSpec, Field(discriminator="kind")]


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


def test_the_scorers_that_ask_a_model_elsewhere_are_read() -> None:
    adapter: TypeAdapter[LabelReadSpec | AnyRemoteSpec] = TypeAdapter(Spec)
    asked = [adapter.validate_python(one) for block in blocks() for one in block.get("scorers", [])]
    assert [one.kind for one in asked] == ["label_read", "label_read", "remote", "remote", "remote"]
