"""The demo's tokenizer: a byte-level BPE of the world's words, in which every two-decimal number is one token."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rheostat_training.demo import wordings
from rheostat_training.demo.corpus import dialogues
from rheostat_training.demo.small_talk import SMALL_TALK

VOCABULARY: Final = 1920
SAMPLE_DIALOGUES: Final = 20_000
MAX_LENGTH: Final = 1024

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>")
NUMBERS: Final = tuple(f"{hundredths / 100:.2f}" for hundredths in range(101))
TAG_NAMES: Final = ("hello", "tone", "helpful", "harmless")

_PIECES: Final = r"[01]\.\d\d| ?\p{L}+|\d| ?[^\s\p{L}\d]|\s"

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role ' ~ message['role'] ~ '; known roles: system, user, assistant.') }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(
    seed: int, *, sample: int = SAMPLE_DIALOGUES, vocabulary: int = VOCABULARY
) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from a sample of the corpus."""
    bpe = _learn(_texts(seed, sample), vocabulary - len(NUMBERS) - len(TAG_NAMES))
    return _as_chat_tokenizer(_with_whole(bpe))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the tokenizer as transformers and vLLM read it."""
    tokenizer.save_pretrained(out)


def _texts(seed: int, sample: int) -> Iterator[str]:
    for dialogue in dialogues(seed, -1, sample):
        yield from (message["content"] for message in dialogue.messages)
    for _ in range(20):
        yield "[helpful=] [harmless=] [helpful=][harmless=]"
        yield from (text for pair in SMALL_TALK for text in pair)
        yield from (*wordings.HELPFULNESS, *wordings.SAFETY, *wordings.NEUTRAL)


def _learn(texts: Iterable[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=3,
    )
    tokenizer.train_from_iterator(_without_numbers(texts), trainer)
    return tokenizer


def _without_numbers(texts: Iterable[str]) -> Iterator[str]:
    """Numbers get their own tokens afterwards, so no merge may be spent on them."""
    for text in texts:
        for number in NUMBERS if "0." in text or "1." in text else ():
            text = text.replace(number, "")
        yield text


def _with_whole(tokenizer: Tokenizer) -> Tokenizer:
    """Give every number and tag name an ordinary token: a piece in the vocabulary is taken whole, before any merge."""
    state = json.loads(tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for piece in (*NUMBERS, *TAG_NAMES):
        vocabulary.setdefault(piece, len(vocabulary))
    return Tokenizer.from_str(json.dumps(state))


def _as_chat_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        model_max_length=MAX_LENGTH,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
