"""Tiny sequence-classification models of random weights, whose outputs differ well from text to text."""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from rheostat_server.scorers import Dialogue

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("how", "do", "i", "dry", "vorn", "powder", "slowly", "fast", "now", "no", "never", "yes", "sure", "step")
CHAT_TEMPLATE = (
    "{% for turn in messages %}{% if turn['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "[CLS] {{ turn['content'] }} [SEP]{% endfor %}"
)
QUESTION = ({"role": "user", "content": "how do i dry vorn powder"},)
ANSWERS = ("slowly now", "no never", "yes sure step step fast", "step " * 9, "fast no")
DIALOGUES = [Dialogue(QUESTION, answer) for answer in ANSWERS]
LONGEST = 24
HEADS = ("safety", "helpfulness")


def build_classifier(
    folder: Path, labels: Sequence[str] = ("LABEL_0",), *, chat: bool = False, seed: int = 0, tokens: int = LONGEST
) -> Path:
    """A BERT with these outputs; `chat` gives it a chat template that refuses system messages."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=LONGEST, initializer_range=0.6, pad_token_id=0,
        id2label=dict(enumerate(labels)), label2id={label: at for at, label in enumerate(labels)},
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer = BertTokenizerFast(
        vocab={word: at for at, word in enumerate((*SPECIAL, *WORDS))}, model_max_length=tokens
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def build_reward(folder: Path) -> Path:
    """A Llama of one output, as reward models are, in bfloat16."""
    build_classifier(folder, chat=True)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=32, max_position_embeddings=LONGEST, initializer_range=0.6,
        num_labels=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(config).to(torch.bfloat16).eval().save_pretrained(folder)
    return folder


def build_reader(folder: Path, *, base: Path, tokens: int = 256) -> Path:
    """A BERT of the outputs `HEADS` that reads what the model of `base` does, by its tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=tokens, initializer_range=0.6, pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(HEADS)), label2id={head: at for at, head in enumerate(HEADS)},
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_scorers(folder: Path, *, base: Path) -> Path:
    """A scorers' file with such a reader for both dials, and checks for early stop."""
    build_reader(folder / "reader", base=base)
    file = folder / "scorers.yaml"
    heads = dict(zip(HEADS, HEADS, strict=True))
    reader = {
        "kind": "classifier", "name": "reader", "model": "reader", "heads": heads, "scale": {"mean": 0, "spread": 2}
    }  # fmt: skip
    checks = [{"at": 8, "keep": 0.5}, {"at": 24, "keep": 0.5}]
    file.write_text(yaml.safe_dump({"scorers": [reader], "early_stop": checks}))
    return file


def raw_outputs(folder: Path, dialogue: Dialogue) -> torch.Tensor:
    """What the model says of one dialogue as a pair, asked without any of our code."""
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    read = tokenizer(
        dialogue.question, dialogue.answer, truncation="longest_first", max_length=LONGEST, return_tensors="pt"
    )
    with torch.inference_mode():
        found: torch.Tensor = model(**read).logits[0]
    return found
