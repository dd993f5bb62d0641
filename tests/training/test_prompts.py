"""Prompt files: every form read, every bad row told by line, and splits that do not move."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat_training.conversation import NotAPrompt, messages_of
from rheostat_training.demo.asking import held_out
from rheostat_training.prompt_files import UnreadablePrompts
from rheostat_training.prompts import PromptSource, PromptsRead, content_key, read_prompts, split_prompts
from rheostat_training.rows import Prompt

PLAIN = [{"prompt": f"how do I grow {what}"} for what in ("herbs", "beans", "peas", "figs")]
TURNS = [{"role": "user", "content": "is it warm"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def lines(path: Path, rows: Sequence[object]) -> Path:
    """Rows as JSON lines; a row that is text stands as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path, **fields: Any) -> PromptsRead:
    return read_prompts(PromptSource(str(path), **fields))


def texts(found: PromptsRead) -> list[str]:
    return [prompt.text for prompt in found.prompts.values()]


WANTED = [row["prompt"] for row in PLAIN]


def test_every_kind_of_file_gives_the_same_prompts(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(PLAIN)
    data.to_parquet(tmp_path / "a.parquet")
    data.to_csv(tmp_path / "a.csv")
    data.save_to_disk(tmp_path / "saved")
    lines(tmp_path / "a.jsonl", PLAIN)
    lines(tmp_path / "lines.json", PLAIN)
    (tmp_path / "array.json").write_text(json.dumps(PLAIN, indent=2))
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write((tmp_path / "a.jsonl").read_bytes())
    names = ("a.parquet", "a.csv", "saved", "a.jsonl", "lines.json", "array.json", "a.jsonl.gz")
    found = {name: read(tmp_path / name) for name in names}
    assert {name: texts(each) for name, each in found.items()} == dict.fromkeys(names, WANTED)
    assert len({tuple(each.prompts) for each in found.values()}) == 1
    assert all(each.rows == len(PLAIN) for each in found.values())


def test_an_instruction_goes_on_with_its_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name the colour", "input": "a ripe tomato", "output": "red"},
        {"instruction": "Name the colour", "input": "a lemon", "output": "yellow"},
        {"instruction": "Name a colour", "input": "", "output": "blue"},
    ]
    found = read(lines(tmp_path / "alpaca.jsonl", rows))
    assert texts(found) == ["Name the colour\n\na ripe tomato", "Name the colour\n\na lemon", "Name a colour"]
    assert found.duplicates == 0
    named = read(lines(tmp_path / "other.jsonl", [{"question": "which", "input": "not ours"}]))
    assert texts(named) == ["which"]


def test_a_folder_of_files_has_the_splits_that_their_names_tell(tmp_path: Path) -> None:
    lines(tmp_path / "train-0.jsonl", PLAIN[:2])
    lines(tmp_path / "train-1.jsonl", [PLAIN[2], "{broken"])
    lines(tmp_path / "test.jsonl", PLAIN[3:])
    found = read(tmp_path)
    assert texts(found) == WANTED[:3]
    assert [str(row) for row in found.bad] == [
        "train-1.jsonl, line 2: is not JSON: Expecting property name enclosed in double quotes at column 2"
    ]
    assert texts(read(tmp_path, split="test")) == WANTED[3:]
    with pytest.raises(UnreadablePrompts, match="validation"):
        read(tmp_path, split="validation")


def test_a_folder_of_parquet_files_is_read_by_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_list(PLAIN[:1]).to_parquet(tmp_path / "data" / "train.parquet")
    datasets.Dataset.from_list(PLAIN[1:]).to_parquet(tmp_path / "data" / "test.parquet")
    assert texts(read(tmp_path / "data", split="test")) == WANTED[1:]


def test_a_saved_set_of_splits_is_read_by_split(tmp_path: Path) -> None:
    parts = {"train": datasets.Dataset.from_list(PLAIN[:3]), "test": datasets.Dataset.from_list(PLAIN[3:])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert texts(read(tmp_path / "saved", split="test")) == WANTED[3:]
    with pytest.raises(UnreadablePrompts, match=r"split is 'dev'; .* has train, test"):
        read(tmp_path / "saved", split="dev")


def test_a_conversation_is_read_in_both_forms_without_the_answer_at_its_end(tmp_path: Path) -> None:
    share_gpt = [{"from": "human", "value": "is it warm"}, {"from": "gpt", "value": "yes"}]
    one = read(lines(tmp_path / "a.jsonl", [{"messages": TURNS}]))
    other = read(lines(tmp_path / "b.jsonl", [{"conversations": share_gpt}]))
    assert list(one.prompts.values()) == list(other.prompts.values())
    assert [prompt.messages for prompt in one.prompts.values()] == [({"role": "user", "content": "is it warm"},)]


def test_earlier_turns_and_a_system_message_are_kept() -> None:
    turns = [{"role": "system", "content": "be brief"}, *TURNS, {"role": "user", "content": "and tomorrow"}]
    assert [message["role"] for message in messages_of(turns, "messages")] == ["system", "user", "assistant", "user"]


def test_a_prompt_column_may_hold_turns(tmp_path: Path) -> None:
    assert texts(read(lines(tmp_path / "a.jsonl", [{"prompt": TURNS[:1]}]))) == ["is it warm"]


def test_conversations_in_parquet_are_those_of_json_lines(tmp_path: Path) -> None:
    rows = [{"messages": TURNS}, {"messages": [*TURNS, {"role": "user", "content": "and tomorrow"}]}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").prompts == read(lines(tmp_path / "a.jsonl", rows)).prompts


def test_parts_of_text_are_joined_and_a_picture_is_refused() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert messages_of([{"role": "user", "content": parts}], "messages")[0]["content"] == "one\ntwo"
    with pytest.raises(NotAPrompt, match="not text"):
        messages_of([{"role": "user", "content": [*parts, {"type": "image_url"}]}], "messages")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "is of type list; a row is an object"),
        ('{"prompt": ""}', "prompt is empty"),
        ('{"prompt": " \\n"}', "prompt is empty"),
        ('{"prompt": null}', "prompt is missing"),
        ('{"other": "text"}', "prompt is missing"),
        ('{"prompt": 7}', "prompt is of type int"),
        ('{"prompt": {}}', "prompt is of type dict"),
        ('{"prompt": []}', "prompt has no turn of a user"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
        ('{"prompt": ["text"]}', r"prompt\[0\] is of type str"),
        ('{"prompt": [{"role": "assistant", "content": "a"}]}', "no turn of a user"),
        ('{"prompt": [{"role": "system", "content": "a"}]}', "does not end in a user's turn"),
        ('{"prompt": [{"role": "tool", "content": "a"}]}', "role 'tool'; it must be one of system, user, assistant"),
        ('{"prompt": [{"from": "bird", "value": "a"}]}', "from 'bird'"),
        ('{"prompt": [{"role": "user", "content": null}]}', "the content of .* is missing"),
        ('{"prompt": [{"text": "a"}]}', "neither role and content nor from and value"),
        ('{"prompt": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, '
         '{"role": "user", "content": "c"}]}', "system message after its first turn"),
    ],
)  # fmt: skip
def test_a_bad_row_is_told_by_its_line_and_left_out(tmp_path: Path, row: str, reason: str) -> None:
    found = read(lines(tmp_path / "a.jsonl", [*PLAIN[:2], row, PLAIN[2]]))
    assert texts(found) == WANTED[:3]
    assert [bad.line for bad in found.bad] == [3]
    assert found.rows == 4
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(str(found.bad[0]))
    assert str(found.bad[0]) == f"a.jsonl, line 3: {found.bad[0].reason}"
    assert "1 bad rows" in found.summary()


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    found = read(lines(tmp_path / "a.jsonl", [PLAIN[0], "", PLAIN[1], "nonsense", PLAIN[2]]))
    assert [bad.line for bad in found.bad] == [4]
    assert found.rows == 4


def test_bytes_that_are_no_text_are_a_bad_row_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(path, PLAIN).read_bytes() + b'{"prompt": "\xff"}\n')
    found = read(path)
    assert texts(found) == WANTED
    assert [str(bad) for bad in found.bad] == ["a.jsonl, line 5: is not JSON: not UTF-8"]


def test_reasons_hold_nothing_of_what_people_wrote(tmp_path: Path) -> None:
    secret = "the word of the day"
    rows = [*PLAIN, f'{{"prompt": "{secret}"', f'["{secret}"]', json.dumps({"prompt": [secret]})]
    found = read(lines(tmp_path / "a.jsonl", rows))
    assert len(found.bad) == 3
    assert secret not in found.summary() + " ".join(map(str, found.bad))


def test_mostly_bad_rows_are_an_error_that_shows_the_first(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [PLAIN[0], *(["nonsense"] * 9)])
    with pytest.raises(UnreadablePrompts, match=r"9 of 10 rows are bad.*line 2: .*line 6: [^;]*$"):
        read(path)


@pytest.mark.parametrize("rows", [[], ["nonsense"], ["[]"]])
def test_a_file_without_a_prompt_is_an_error(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(UnreadablePrompts, match="no row that could be read"):
        read(lines(tmp_path / "a.jsonl", rows))


def test_only_too_long_prompts_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePrompts, match=r"no prompt is left.*4 too long"):
        read(lines(tmp_path / "a.jsonl", PLAIN), max_characters=3)


def test_prompts_alike_but_for_spacing_and_case_are_one_and_counted(tmp_path: Path) -> None:
    rows = [PLAIN[0], {"prompt": "  How do  I grow\nHERBS "}, PLAIN[1], PLAIN[0]]
    found = read(lines(tmp_path / "a.jsonl", rows))
    assert texts(found) == WANTED[:2]
    assert found.duplicates == 2
    assert "2 duplicates" in found.summary()


def test_long_prompts_are_counted_and_left_out(tmp_path: Path) -> None:
    found = read(lines(tmp_path / "a.jsonl", [*PLAIN, {"prompt": "x" * 99}]), max_characters=98)
    assert (len(found.prompts), found.too_long, found.bad) == (4, 1, ())


def test_a_rows_own_id_is_kept_where_each_has_one(tmp_path: Path) -> None:
    rows = [{"id": number, **row} for number, row in enumerate(PLAIN)]
    assert list(read(lines(tmp_path / "a.jsonl", rows)).prompts) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("wrong", [None, 1, "", True])
def test_ids_follow_from_the_prompts_where_one_row_has_none_of_its_own(tmp_path: Path, wrong: object) -> None:
    rows = [{"id": number, **row} for number, row in enumerate(PLAIN)]
    rows[3]["id"] = wrong
    found = read(lines(tmp_path / "a.jsonl", rows))
    assert all(id == f"prompt-{content_key(prompt.messages)[:16]}" for id, prompt in found.prompts.items())
    backwards = read(lines(tmp_path / "b.jsonl", rows[::-1]))
    assert backwards.prompts == found.prompts


def test_a_count_draws_the_same_in_any_order_and_more_of_the_same_for_a_larger_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"prompt number {number}"} for number in range(60)]
    ten = read(lines(tmp_path / "a.jsonl", rows), count=10, seed=3)
    random.Random(0).shuffle(rows)
    again = read(lines(tmp_path / "b.jsonl", rows), count=10, seed=3)
    twenty = read(tmp_path / "b.jsonl", count=20, seed=3)
    assert len(ten.prompts) == 10
    assert ten.undrawn == 50
    assert again.prompts == ten.prompts
    assert ten.prompts.keys() < twenty.prompts.keys()
    assert read(tmp_path / "b.jsonl", count=10, seed=4).prompts != ten.prompts


def test_the_column_is_the_one_named_or_the_only_one_known(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "question": "what is it", "note": f"read {row['prompt']}"} for row in PLAIN]
    path = lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(UnreadablePrompts, match="several columns may hold the prompts: prompt, question"):
        read(path)
    with pytest.raises(UnreadablePrompts, match="no column 'ask'; the columns are prompt, question, note"):
        read(path, column="ask")
    assert texts(read(path, column="note"))[0] == "read how do I grow herbs"
    with pytest.raises(UnreadablePrompts, match="of note"):
        read(lines(tmp_path / "b.jsonl", [{"note": "a"}]))


@pytest.mark.parametrize(
    ("name", "error"), [("gone.jsonl", "no file or folder"), ("./gone", "no file or folder"), ("/a/b", "no file")]
)
def test_a_path_that_is_not_there_is_never_looked_for_elsewhere(name: str, error: str) -> None:
    with pytest.raises(UnreadablePrompts, match=error):
        read_prompts(PromptSource(name))


def test_a_file_of_another_kind_or_of_one_split_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UnreadablePrompts, match=r"'\.txt'; prompt files end in \.jsonl"):
        read(tmp_path / "a.txt")
    path = lines(tmp_path / "a.jsonl", PLAIN)
    with pytest.raises(UnreadablePrompts, match="split is 'test'"):
        read(path, split="test")
    with pytest.raises(UnreadablePrompts, match="subset is 'en'"):
        read(path, subset="en")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UnreadablePrompts, match="cannot be read"):
        read(tmp_path / name)


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UnreadablePrompts, match="somebody/prompts is no file or folder here, and the Hub could not"):
        read_prompts(PromptSource("somebody/prompts"))


def test_a_data_set_of_the_hub_is_read_by_name_subset_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def found(source: str, **wanted: object) -> datasets.Dataset:
        asked.update(wanted, source=source)
        return datasets.Dataset.from_list([*PLAIN, {"prompt": None}])

    monkeypatch.setattr(datasets, "load_dataset", found)
    read_rows = read_prompts(PromptSource("somebody/prompts", split="test", subset="en"))
    assert asked == {"source": "somebody/prompts", "name": "en", "split": "test"}
    assert texts(read_rows) == WANTED
    assert [str(bad) for bad in read_rows.bad] == ["somebody/prompts, row 5: prompt is missing"]


def test_the_demo_worlds_splits_share_no_prompt() -> None:
    train = read_prompts(PromptSource("demo", count=50, seed=1))
    apart = read_prompts(PromptSource("demo", split="held-out", count=20))
    assert len(train.prompts) == 50
    assert apart.prompts == held_out(20)
    assert not {content_key(prompt.messages) for prompt in train.prompts.values()} & {
        content_key(prompt.messages) for prompt in apart.prompts.values()
    }


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"source": ""}, "source"),
        ({"source": "a", "count": 0}, "count"),
        ({"source": "a", "max_characters": 0}, "max_characters"),
        ({"source": "demo", "split": "test"}, "split"),
        ({"source": "demo", "column": "prompt"}, "column"),
    ],
)
def test_a_source_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PromptSource(**wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner),
)


@given(st.lists(JSON | st.text().map(lambda text: {"prompt": text}), min_size=1, max_size=8), st.binary(max_size=20))
def test_every_row_of_any_file_is_a_prompt_or_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    good = [{"prompt": f"good {number}"} for number in range(2 * len(rows) + 8)]
    text = "".join(json.dumps(row) + "\n" for row in [*good, *rows])
    path.write_bytes(text.encode() + tail.replace(b"\n", b""))
    found = read(path)
    assert len(found.prompts) + found.duplicates + len(found.bad) == found.rows
    assert found.rows - len(good) in {len(rows), len(rows) + 1}
    assert all(prompt.text.strip() and content_key(prompt.messages) for prompt in found.prompts.values())


@given(
    st.sets(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=30, max_size=60), st.randoms()
)
def test_a_split_does_not_move_with_the_order_or_with_others_beside(said: set[str], chance: random.Random) -> None:
    prompts = {f"p{number}": Prompt.user(f"p{number}", text) for number, text in enumerate(sorted(said))}
    kept, apart = split_prompts(prompts, 0.5, seed=2)
    assert {**kept, **apart} == prompts
    assert not kept.keys() & apart.keys()
    some = dict(chance.sample(list(prompts.items()), 25))
    try:
        _, fewer = split_prompts(some, 0.5, seed=2)
    except ValueError:
        return
    assert fewer.keys() == apart.keys() & some.keys()


def test_a_duplicate_of_a_held_out_prompt_is_held_out() -> None:
    prompts = {f"p{number}": Prompt.user(f"p{number}", f"prompt {number}") for number in range(40)}
    twins = {f"t{number}": Prompt.user(f"t{number}", f" PROMPT  {number}") for number in range(40)}
    _, apart = split_prompts({**prompts, **twins}, 0.3)
    assert {id[1:] for id in apart if id[0] == "p"} == {id[1:] for id in apart if id[0] == "t"}


def test_a_share_is_about_the_share_asked_for() -> None:
    prompts = {f"p{number}": Prompt.user(f"p{number}", f"prompt {number}") for number in range(2000)}
    _, apart = split_prompts(prompts, 0.2)
    assert 340 < len(apart) < 460


@pytest.mark.parametrize(("share", "count"), [(0.0, 9), (1.0, 9), (-1.0, 9), (0.5, 1), (0.5, 0)])
def test_a_split_with_an_empty_side_is_refused(share: float, count: int) -> None:
    prompts = {f"p{number}": Prompt.user(f"p{number}", f"prompt {number}") for number in range(count)}
    with pytest.raises(ValueError, match="held_out"):
        split_prompts(prompts, share)
