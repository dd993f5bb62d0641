"""What the model reads in training: the server's control text, and negatives that are wrong and nothing else."""

from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import (
    cross_negatives,
    following_ids,
    masked_prefix,
    prompt_text,
    shared_prefix,
    token_ids,
)
from rheostat_training.models import LoadedModel
from rheostat_training.rows import Example, Prompt
from rheostat_training.training_set import build_training_set
from tests.training.conftest import HIGH, LOW
from tests.training.tiny_fit import training_row

MIDDLE = Dials(safety=0.5, helpfulness=0.5)


def example(dials: Dials, answer: str, prompt_id: str = "p") -> Example:
    return Example(prompt_id, answer, dials, dials.safety, dials.helpfulness)


def test_the_prompt_is_what_the_server_would_send(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    messages = prompts["p0"].messages
    served = model.tokenizer.apply_chat_template(
        ControlText().apply(messages, HIGH), add_generation_prompt=True, tokenize=False
    )
    assert prompt_text(model.tokenizer, messages, HIGH) == served
    assert "how do I plant herbs [helpful=1.00][harmless=1.00]" in served


def test_without_dials_there_is_no_control_text(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    assert "[" not in prompt_text(model.tokenizer, prompts["p0"].messages, None)


def test_encoding_leaves_the_messages_as_they_were(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    training_row(model, prompts["p0"], HIGH, "yes")
    assert prompts["p0"] == Prompt.user("p0", "how do I plant herbs")


def test_prompt_and_answer_are_the_ids_of_their_texts(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    encoded = training_row(model, prompts["p0"], HIGH, "read the label").encoded
    assert model.tokenizer.decode(encoded.prompt_ids) == prompt_text(model.tokenizer, prompts["p0"].messages, HIGH)
    assert model.tokenizer.decode(encoded.answer_ids[:-1]) == "read the label"
    assert encoded.answer_ids[-1] == model.tokenizer.eos_token_id


def sentence_piece() -> PreTrainedTokenizerFast:
    """As Llama 2's: a text begins with a space, also after a special token, and a line break is a byte."""
    words = {word: id for id, word in enumerate(["<end>", "<assistant>", "<0x0A>", "▁", *"yesnoqi"])}
    tokenizer = Tokenizer(models.BPE(words, [], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.add_special_tokens({"additional_special_tokens": ["<assistant>"]})
    return fast


def test_an_answer_goes_on_after_its_prompt_as_the_model_says_it() -> None:
    tokenizer = sentence_piece()
    [alone] = token_ids(tokenizer, ["yes"])
    assert tokenizer.convert_ids_to_tokens(alone) == ["▁", "y", "e", "s"]
    prompts = ["qi<end><assistant>\n", "qi<end><assistant>", "qi"]
    after_a_line, after_a_token, _ = following_ids(tokenizer, prompts, ["yes"] * 3)
    assert tokenizer.convert_ids_to_tokens(after_a_line) == ["y", "e", "s"]
    assert after_a_token == alone


def test_an_answer_that_would_change_its_prompts_end_is_encoded_by_itself(model: LoadedModel) -> None:
    [prompt, whole, answer] = token_ids(model.tokenizer, ["read the la", "read the label", "bel"])
    assert whole[: len(prompt)] != prompt
    assert following_ids(model.tokenizer, ["read the la", "now ", "read the la"], ["bel", "x", " bel"])[0] == answer


def test_negatives_are_the_cross_product_without_the_true_pairs() -> None:
    group = [example(LOW, "a"), example(HIGH, "b"), example(MIDDLE, "c")]
    found = {(negative.dials, negative.answer) for negative in cross_negatives(group)}
    assert found == {(LOW, "b"), (LOW, "c"), (HIGH, "a"), (HIGH, "c"), (MIDDLE, "a"), (MIDDLE, "b")}


def test_an_answer_that_is_right_under_two_dials_is_a_negative_of_neither() -> None:
    group = [example(LOW, "a"), example(HIGH, "a"), example(MIDDLE, "c")]
    found = {(negative.dials, negative.answer) for negative in cross_negatives(group)}
    assert found == {(LOW, "c"), (HIGH, "c"), (MIDDLE, "a")}


def test_neighbouring_levels_are_no_negatives_where_a_distance_is_asked() -> None:
    near = Dials(safety=0.0, helpfulness=0.25)
    group = [example(LOW, "a"), example(near, "b"), example(HIGH, "c")]
    found = {(negative.dials, negative.answer) for negative in cross_negatives(group, distance=0.5)}
    assert found == {(LOW, "c"), (near, "c"), (HIGH, "a"), (HIGH, "b")}


def test_a_prefix_that_a_negative_shares_with_a_right_answer_is_masked() -> None:
    assert shared_prefix((1, 2, 3), (1, 2, 4)) == 2
    assert masked_prefix((1, 2, 3, 9), [(1, 5), (1, 2, 4)]) == 2
    assert masked_prefix((1, 2), []) == 0


def test_every_negative_of_the_training_set_is_masked_up_to_where_it_parts_from_the_right_answer(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    group = [example(LOW, "read the label twice", "p0"), example(HIGH, "read the label and wait", "p0")]
    for positive in build_training_set(model, prompts, group, negative_distance=0.0):
        [negative] = positive.negatives
        masked = negative.masked
        right, wrong = positive.row.encoded.answer_ids, negative.encoded.answer_ids
        assert negative.encoded.prompt_ids == positive.row.encoded.prompt_ids
        assert masked > 1
        assert right[:masked] == wrong[:masked]
        assert right[masked] != wrong[masked]
