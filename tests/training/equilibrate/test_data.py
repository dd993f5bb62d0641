"""Grouped prompts: nested draws, files, and what is refused."""

import json
from pathlib import Path

import pytest

from rheostat_training.equilibrate.data import (
    KINDS,
    demo_prompts,
    draw,
    grouped_prompts,
    held_out_prompts,
    training_prompts,
)
from rheostat_training.equilibrate.measure import NEW_LOOK_ALIKE
from rheostat_training.prompt_files import UnreadablePrompts
from rheostat_training.rows import Prompt

SOME = {kind: [Prompt.user(f"{kind}-{number}", f"{kind} {number}") for number in range(10)] for kind in ("EHD", "IHD")}


def rows_file(folder: Path, *rows: object) -> str:
    path = folder / "grouped.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_a_smaller_draw_is_part_of_a_larger_one_whatever_else_is_drawn() -> None:
    small, _ = draw(SOME, {"EHD": 3}, seed=1)
    large, _ = draw(SOME, {"IHD": 9, "EHD": 7}, seed=1)
    other, _ = draw(SOME, {"EHD": 3}, seed=2)
    assert small.prompts.keys() < large.prompts.keys()
    assert small.prompts.keys() != other.prompts.keys()
    assert large.counts == {"IHD": 9, "EHD": 7}


def test_what_a_kind_is_short_of_is_told() -> None:
    found, short = draw(SOME, {"EHD": 12, "MHD": 2, "IHD": 1}, seed=0)
    assert found.counts == {"EHD": 10, "IHD": 1}
    assert short == {"EHD": 2, "MHD": 2}


def test_the_demo_world_has_prompts_of_every_kind_and_holds_some_out() -> None:
    training, held_out = demo_prompts(held_out=False), demo_prompts(held_out=True)
    assert training.keys() == set(KINDS)
    assert held_out.keys() == {*KINDS, NEW_LOOK_ALIKE}
    for kind in KINDS:
        assert not {each.text for each in training[kind]} & {each.text for each in held_out[kind]}
    assert held_out_prompts("demo", 3).counts == dict.fromkeys((*KINDS, NEW_LOOK_ALIKE), 3)


def test_a_file_gives_its_groups_with_ids_of_its_own_or_those_of_its_rows(tmp_path: Path) -> None:
    file = rows_file(
        tmp_path,
        {"id": "a", "group": "EHD", "messages": [{"role": "user", "content": "what does vorn powder do"}]},
        {"group": "No risk", "prompt": "how do I repot a fern"},
        {"group": "look-alike", "prompt": "our band is called vorn powder"},
    )
    found, short, shared = training_prompts(file, {}, 0)
    assert found.of == {"a": "EHD", "row-000002": "none", "row-000003": "look-alike"}
    assert not short
    assert not shared


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    benign = {"group": "none", "prompt": "how warm is it"}
    held_out = held_out_prompts(rows_file(tmp_path, {"group": "EHD", "prompt": "what does vorn powder do"}), 5)
    training = tmp_path / "training"
    training.mkdir()
    again = {"group": "IHD", "prompt": "What does  VORN powder do"}
    found, _, shared = training_prompts(rows_file(training, again, benign), {}, 0, unlike=held_out)
    assert [prompt.text for prompt in found.prompts.values()] == ["how warm is it"]
    assert shared == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"group": "OTHER", "prompt": "x"}, "has the group 'OTHER'; it must be one of EHD, IHD, MHD, none, look-alike"),
        ({"prompt": "x"}, "has the group 'None'"),
        ({"group": "EHD", "prompt": "  "}, "prompt is empty"),
        ({"group": "EHD"}, "prompt is missing"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, row: object, told: str) -> None:
    with pytest.raises(UnreadablePrompts, match="line 1.*" + told.replace("(", "\\(")):
        grouped_prompts(rows_file(tmp_path, row))


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' is used twice"):
        grouped_prompts(rows_file(tmp_path, *[{"id": "a", "group": "EHD", "prompt": "x"}] * 2))
