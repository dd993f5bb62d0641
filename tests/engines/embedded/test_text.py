"""Text as it comes: never half a character, never a stop string, and in the end all of it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rheostat_server.engines.embedded.text import Detokenizer, StopText


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def spoken(tokenizer: Tokenizer, text: str, prompt: str = "so ") -> list[str]:
    detokenizer = Detokenizer(tokenizer, tokenizer.encode(prompt).ids)
    return [detokenizer.push(token) for token in tokenizer.encode(text).ids]


def test_a_character_comes_whole_or_not_yet(byte_tokenizer: Tokenizer) -> None:
    assert spoken(byte_tokenizer, "é€🙂") == ["", "é", "", "", "€", "", "", "", "🙂"]


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_the_pieces_join_to_the_text(byte_tokenizer: Tokenizer, text: str) -> None:
    assert "".join(spoken(byte_tokenizer, text)) == text


def test_bytes_that_are_no_text_show_as_such_once_text_follows(byte_tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(byte_tokenizer, [])
    half, letter = byte_tokenizer.encode("€").ids[0], byte_tokenizer.encode("a").ids[0]
    assert [detokenizer.push(half), detokenizer.push(letter)] == ["", "\ufffda"]


def test_the_first_word_keeps_the_space_that_a_metaspace_decoder_would_strip() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁yes": 0, "▁no": 1}, unk_token="▁no"))
    tokenizer.decoder = decoders.Metaspace()
    assert tokenizer.decode([0]) == "yes"
    assert Detokenizer(tokenizer, [1]).push(0) == " yes"


@pytest.mark.parametrize(
    ("pieces", "stops", "told"),
    [
        (["one ", "two"], [], "one two"),
        (["one ST", "OP two"], ["STOP"], "one "),
        (["on", "e S", "T", "O", "P"], ["STOP"], "one "),
        (["one S", "T", "ay"], ["STOP"], "one STay"),
        (["aab"], ["ab"], "a"),
        (["a", "a", "b"], ["ab"], "a"),
        (["one two three"], ["three", "two"], "one "),
        (["STOP"], ["STOP"], ""),
        (["one ST"], ["STOP"], "one ST"),
    ],
)
def test_text_is_told_up_to_the_first_stop_string(pieces: list[str], stops: list[str], told: str) -> None:
    stop = StopText(stops)
    heard = ""
    for piece in pieces:
        heard += stop.push(piece)
        if stop.stopped:
            break
    assert heard + stop.flush() == told


@given(text=st.text("ab", max_size=12), cuts=st.sets(st.integers(1, 11)), stop=st.text("ab", min_size=1, max_size=4))
def test_where_tokens_begin_makes_no_difference_to_a_stop(text: str, cuts: set[int], stop: str) -> None:
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    stop_text = StopText([stop])
    heard = ""
    for start, end in itertools.pairwise(borders):
        heard += stop_text.push(text[start:end])
        assert stop not in heard
        if stop_text.stopped:
            break
    assert heard + stop_text.flush() == text.split(stop)[0]
    assert stop_text.stopped == (stop in text)
