"""Two bits make a group; labels are read with a count of what is no group; a labelling knows its folder."""

import gzip
import json
from pathlib import Path

import pytest

from rheostat_training.equilibrate.data import KINDS
from rheostat_training.equilibrate.fdc.group import BY_BITS, Group, GroupedPrompt, group_of, read_group_labels
from rheostat_training.equilibrate.fdc.labels import GROUPED_FILE, REPORT_FILE, KnownGroups, label_prompts
from rheostat_training.progress import Progress
from rheostat_training.prompts import PromptSource, read_prompts
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import BadRow, read_rows
from rheostat_training.work_folder import NotOurs
from tests.training.equilibrate.scripted import prompts_of

QUIET = Progress.silent()
KNOWN = KnownGroups(lambda text: {"a": Group.EHD, "b": Group.NONE}.get(text), "a table")
PROMPTS = {prompt.id: prompt for prompt in prompts_of(one="a", two="b", three="c")}


def labels_file(folder: Path, *rows: object) -> Path:
    path = folder / "labels.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    return path


def test_each_pair_of_bits_is_one_group_and_back() -> None:
    for group in BY_BITS:
        assert group_of(explicit=group.is_explicit, malicious=group.is_malicious) is group
    assert len({group_of(explicit=e, malicious=m) for e in (True, False) for m in (True, False)}) == 4


def test_the_groups_are_the_kinds_that_a_run_trains_on() -> None:
    assert {group.value for group in Group} == set(KINDS)
    assert not Group.LOOK_ALIKE.is_explicit
    assert not Group.LOOK_ALIKE.is_malicious


def test_released_labels_are_read_and_other_is_counted(tmp_path: Path) -> None:
    rows = [{"id": n, "prompt": f"p {n}", "group": name} for n, name in enumerate(("EHD", "No risk", "OTHER", "IHD"))]
    found = read_group_labels([labels_file(tmp_path, *rows)])
    assert [row.group for row in found.rows] == [Group.EHD, Group.NONE, Group.IHD]
    assert found.left_out == {"OTHER": 1}


def test_equal_prompts_with_different_labels_all_stay_and_share_a_key(tmp_path: Path) -> None:
    rows = [{"prompt": "Open it", "group": "EHD"}, {"prompt": "open  it", "group": "MHD"}]
    [one, other] = read_group_labels([labels_file(tmp_path, *rows)]).rows
    assert one.key == other.key
    assert one.group is not other.group


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "x", "group": "HHD"}, "group 'HHD'; known are EHD, IHD, MHD, none, No risk, OTHER"),
        ({"prompt": "x", "group": "look-alike"}, "group 'look-alike'; known are EHD, IHD, MHD, none, No risk, OTHER"),
        ({"prompt": "x", "group": None}, "group 'None'"),
        ({"prompt": " ", "group": "EHD"}, "no text as its prompt"),
        (7, "is of type int"),
    ],
)
def test_a_bad_row_is_refused_by_its_place(tmp_path: Path, row: object, told: str) -> None:
    with pytest.raises(BadRow, match="line 2") as error:
        read_group_labels([labels_file(tmp_path, {"prompt": "x", "group": "EHD"}, row)])
    assert told in str(error.value)


def test_labels_of_other_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row has a group to learn; 1 are OTHER"):
        read_group_labels([labels_file(tmp_path, {"prompt": "x", "group": "OTHER"})])


def test_a_labelling_writes_a_prompt_file_and_lists_failures_by_id(tmp_path: Path) -> None:
    report = label_prompts(KNOWN, PROMPTS, tmp_path, progress=QUIET)
    rows = list(read_rows(tmp_path / GROUPED_FILE, GroupedPrompt))
    assert [(row.id, row.group) for row in rows] == [("one", Group.EHD), ("two", Group.NONE)]
    assert report["counts"] == {"EHD": 1, "IHD": 0, "MHD": 0, "none": 1}
    assert report["failed"] == {"three": "not known to a table"}
    assert json.loads((tmp_path / REPORT_FILE).read_text()) == report
    assert set(read_prompts(PromptSource(str(tmp_path / GROUPED_FILE))).prompts) == {"one", "two"}


def test_other_prompts_or_files_of_others_are_not_labelled_over(tmp_path: Path) -> None:
    label_prompts(KNOWN, PROMPTS, tmp_path / "a", progress=QUIET)
    with pytest.raises(AnotherRun, match="prompts"):
        label_prompts(KNOWN, {"one": PROMPTS["one"]}, tmp_path / "a", progress=QUIET)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / REPORT_FILE).write_text("mine")
    with pytest.raises(NotOurs, match="report"):
        label_prompts(KNOWN, PROMPTS, tmp_path / "b", progress=QUIET)
