"""A fit that takes seconds: a random Llama, four prompts, eight answers; also as a command, for processes of its own.

`python -m torch.distributed.run -m tests.training.tiny_fit TOKENIZER OUT '{"steps": 4}'` fits by that plan.
"""

import os
import sys
from pathlib import Path
from typing import Final

import torch
from pydantic import TypeAdapter
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import Encoded
from rheostat_training.fit import FitPlan, FitReport, fit
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Example, Prompt
from rheostat_training.training_set import TrainingRow, build_training_set

LOW: Final = Dials(safety=0.0, helpfulness=0.0)
HIGH: Final = Dials(safety=1.0, helpfulness=1.0)
QUESTIONS: Final = (
    "how do I plant herbs",
    "what may I mix at home",
    "is the label right",
    "how warm is the morning today",
)
ANSWERS: Final = ((LOW, "no, I do not think so"), (HIGH, "yes, read the label first and open the window"))
PLAN: Final = FitPlan(
    rank=4,
    lora_alpha=8,
    steps=8,
    batch_rows=4,
    warmup_steps=2,
    learning_rate=1e-2,
    negatives_per_positive=1.0,
    dropout=0.1,
    checkpoint_every=3,
)


def tiny_llama(tokenizer_folder: Path) -> LoadedModel:
    """The same random model each time."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LoadedModel(LlamaForCausalLM(config).eval(), tokenizer)


def tiny_prompts() -> dict[str, Prompt]:
    return {f"p{number}": Prompt.user(f"p{number}", text) for number, text in enumerate(QUESTIONS)}


def tiny_examples() -> list[Example]:
    return [
        Example(id, answer, dials, dials.safety, dials.helpfulness)
        for id in tiny_prompts()
        for dials, answer in ANSWERS
    ]


def training_row(base: LoadedModel, prompt: Prompt, dials: Dials | None, answer: str) -> TrainingRow:
    """A prompt and an answer as a fit reads them; without dials, without control text."""
    example = Example(prompt.id, answer, dials or HIGH, 0.0, 0.0)
    [positive] = build_training_set(base, {prompt.id: prompt}, [example], negative_distance=0)
    return positive.row if dials else TrainingRow(Encoded(positive.plain_ids, positive.row.encoded.answer_ids))


def tiny_fit(tokenizer_folder: Path, out: Path, plan: FitPlan = PLAN) -> FitReport:
    """The fit with one thread, in any process."""
    torch.set_num_threads(1)
    base = tiny_llama(tokenizer_folder)
    return fit(base, tiny_prompts(), tiny_examples(), plan, out, report_to="none", progress=Progress.silent())


if __name__ == "__main__":
    print(f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']}", flush=True)
    tiny_fit(Path(sys.argv[1]), Path(sys.argv[2]), TypeAdapter(FitPlan).validate_json(sys.argv[3]))
