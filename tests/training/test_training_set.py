"""Which rows a step takes: balanced, bucketed, and the same at whatever step the run begins."""

from collections import Counter
from itertools import islice

import pytest

from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import Encoded
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Prompt
from rheostat_training.training_set import Dither, Positive, StepRows, TrainingRow, build_training_set, steps
from tests.training.conftest import HIGH, LOW


def positive(dials: Dials, number: int) -> Positive:
    answer = tuple(range(number % 50 + 1))
    wrong = TrainingRow(Encoded((number,), (7, 7, 7)), masked=1)
    return Positive(TrainingRow(Encoded((number,), answer)), dials, (wrong,), (7,))


POSITIVES = [positive(LOW, number) for number in range(90)] + [positive(HIGH, 1000 + number) for number in range(10)]


def taken(
    *, first: int = 0, count: int = 40, negatives: float = 0.5, max_repeats: int = 100, anchors: int = 0
) -> list[StepRows]:
    endless = steps(
        POSITIVES,
        batch_rows=8,
        negatives_per_positive=negatives,
        max_repeats=max_repeats,
        seed=1,
        anchors=anchors,
        anchor_after=4,
        first=first,
    )
    return list(islice(endless, count))


def test_a_step_is_the_same_wherever_the_run_begins() -> None:
    assert taken()[13:30] == taken(first=13, count=17)


def test_rare_levels_come_as_often_as_common_ones() -> None:
    rows = [row for step in taken(count=22) for row in step.positives]
    high = sum(row.encoded.prompt_ids[0] >= 1000 for row in rows)
    assert high / len(rows) == pytest.approx(0.5, abs=0.05)


def test_a_rare_example_is_repeated_no_more_than_it_may_be() -> None:
    per_pass = (90 + 20) // 8
    rows = [row.encoded.prompt_ids[0] for step in taken(count=per_pass, max_repeats=2) for row in step.positives]
    assert max(Counter(rows).values()) == 2


def test_half_a_negative_a_positive_is_one_for_every_second() -> None:
    assert {len(step.negatives) for step in taken(negatives=0.5) if len(step.positives) == 8} == {4}
    assert {len(step.negatives) for step in taken(negatives=2.0) if len(step.positives) == 8} == {16}
    assert {len(step.negatives) for step in taken(negatives=0.0)} == {0}


@pytest.mark.parametrize("count", [5, 8, 9, 24, 129, 143])
def test_every_step_is_full_unless_there_are_too_few_rows_for_one(count: int) -> None:
    """129 rows: the last pool of those sorted together would make a step of one row."""
    some = [positive(LOW, number) for number in range(count)]
    endless = steps(some, batch_rows=8, negatives_per_positive=0, max_repeats=1, seed=1)
    passes = max(1, count // 8)
    drawn = [[row.encoded.prompt_ids for row in step.positives] for step in islice(endless, 3 * passes)]
    assert {len(step) for step in drawn} == {min(8, count)}
    for at in range(0, len(drawn), passes):
        rows = [row for step in drawn[at : at + passes] for row in step]
        assert len(set(rows)) == len(rows)


def test_rows_of_a_step_are_of_like_length() -> None:
    widths = [[row.encoded.length for row in step.positives] for step in taken()]
    padding = sum(max(row) * len(row) - sum(row) for row in widths) / sum(max(row) * len(row) for row in widths)
    assert padding < 0.2


def test_an_example_of_an_unknown_prompt_is_refused_by_its_id(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="'elsewhere'"):
        build_training_set(model, {}, [Example("elsewhere", "a", LOW, 0, 0)], negative_distance=0)


def test_an_answer_ends_as_the_chat_template_ends_one(
    model: LoadedModel, prompts: dict[str, Prompt], examples: list[Example]
) -> None:
    """As with Gemma, whose tokenizer's eos is not what its template closes a turn with."""
    own, turn = model.tokenizer.eos_token_id, model.tokenizer.pad_token_id
    model.tokenizer.chat_template = model.tokenizer.chat_template.replace("<end>", "<pad>")
    for ends, learnt in ([own, turn], turn), (own, own):
        model.model.generation_config.eos_token_id = ends
        positives = build_training_set(model, prompts, examples, negative_distance=0)
        assert {item.row.encoded.answer_ids[-1] for item in positives} == {learnt}


def test_without_any_end_token_nothing_can_be_learnt(
    model: LoadedModel, prompts: dict[str, Prompt], examples: list[Example]
) -> None:
    model.tokenizer.eos_token = None
    model.model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="no eos token"):
        build_training_set(model, prompts, examples, negative_distance=0)


def test_no_examples_are_refused(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    with pytest.raises(ValueError, match="examples are empty"):
        build_training_set(model, prompts, [], negative_distance=0)


def test_dithered_dials_make_the_values_between_two_levels_an_even_mixture() -> None:
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    dither = Dither(share=1.0, width=0.25)
    moved = [
        (level, dither.moved(f"p{number}", Dials(safety=level, helpfulness=0.5)).safety)
        for level in levels
        for number in range(20_000)
    ]
    for low in levels[:-1]:
        for share in (0.2, 0.5, 0.8):
            value = low + share * 0.25
            near = [level for level, reached in moved if abs(reached - value) < 0.015]
            assert set(near) == {low, low + 0.25}
            assert sum(level > low for level in near) / len(near) == pytest.approx(share, abs=0.06)


def test_a_dither_of_no_share_moves_nothing_and_the_same_seed_moves_alike() -> None:
    assert Dither().moved("p", HIGH) == HIGH
    one, again, other = (Dither(1.0, 0.25, seed).moved("p", Dials(safety=0.5, helpfulness=0.5)) for seed in (1, 1, 2))
    assert one == again != other


def test_dithering_changes_the_control_text_and_neither_levels_nor_answers(
    model: LoadedModel, prompts: dict[str, Prompt], examples: list[Example]
) -> None:
    plain = build_training_set(model, prompts, examples, negative_distance=0)
    moved = build_training_set(model, prompts, examples, negative_distance=0, dither=Dither(share=1.0))
    assert [row.dials for row in plain] == [row.dials for row in moved]
    assert [row.row.encoded.answer_ids for row in plain] == [row.row.encoded.answer_ids for row in moved]
    assert [row.row.encoded.prompt_ids for row in plain] != [row.row.encoded.prompt_ids for row in moved]
    for row in moved:
        assert {negative.encoded.prompt_ids for negative in row.negatives} <= {row.row.encoded.prompt_ids}


def test_heads_are_first_tokens_without_an_end(
    model: LoadedModel, prompts: dict[str, Prompt], examples: list[Example]
) -> None:
    positives = build_training_set(model, prompts, examples, negative_distance=0)
    whole = StepRows(tuple(item.row for item in positives), ())
    for head, row in zip(whole.heads(3).positives, whole.positives, strict=True):
        assert head.encoded.answer_ids == row.encoded.answer_ids[:3]
        assert model.tokenizer.eos_token_id not in head.encoded.answer_ids
        assert head.encoded.prompt_ids == row.encoded.prompt_ids


def test_a_head_that_ends_before_the_negative_parts_from_the_right_answer_has_no_negative(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    answers = [(LOW, "read the label twice"), (HIGH, "read the label and wait")]
    group = [Example("p0", answer, dials, 0.5, 0.5) for dials, answer in answers]
    positives = build_training_set(model, prompts, group, negative_distance=0)
    negatives = tuple(negative for item in positives for negative in item.negatives)
    whole = StepRows(tuple(item.row for item in positives), negatives)
    assert len(whole.negatives) == 2
    assert whole.heads(1).negatives == ()


def test_a_step_has_its_anchors_with_and_without_control_text() -> None:
    for step in taken(anchors=3):
        assert len(step.anchors) <= 3
        for anchor in step.anchors:
            assert anchor.dialled.masked == anchor.plain.masked == 4
            assert anchor.plain.encoded.prompt_ids == (7,)
            assert anchor.dialled.encoded.prompt_ids != (7,)
            assert anchor.dialled.encoded.answer_ids == anchor.plain.encoded.answer_ids
    assert any(len(step.anchors) == 3 for step in taken(anchors=3))
    assert not any(step.anchors for step in taken())


def test_an_answer_that_ends_with_its_head_is_no_anchor() -> None:
    assert positive(LOW, 3).anchor(4) is None
    assert positive(LOW, 4).anchor(4) is not None
