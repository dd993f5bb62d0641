"""Which of its own answers the base model stands by: a slip at temperature 1 is a token that it hardly believes in."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from rheostat_training.conditioning import encode
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Sample

BATCH_ROWS = 64


def least_probabilities(
    loaded: LoadedModel, prompts: Mapping[str, Prompt], answers: Sequence[Sample], *, skip: int, progress: Progress
) -> list[float]:
    """For each answer the least probability that the model gave one of its tokens, the first `skip` left out.

    The first tokens choose the levels, and a rare level is no slip.
    """
    order = sorted(range(len(answers)), key=lambda place: answers[place].tokens)
    found = [0.0] * len(answers)
    with progress.task("read again", len(answers), unit="answers") as task:
        for start in range(0, len(order), BATCH_ROWS):
            places = order[start : start + BATCH_ROWS]
            least = _least(loaded, prompts, [answers[place] for place in places], skip)
            for place, value in zip(places, least, strict=True):
                found[place] = value
            task.advance(len(places))
    return found


def _least(loaded: LoadedModel, prompts: Mapping[str, Prompt], answers: Sequence[Sample], skip: int) -> Iterator[float]:
    rows = [encode(loaded.tokenizer, prompts[row.prompt_id].messages, None, row.answer) for row in answers]
    ids = torch.zeros(len(rows), max(row.length for row in rows), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : row.length] = torch.tensor([*row.prompt_ids, *row.answer_ids])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = loaded.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    chosen = (logits.gather(-1, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)).exp()
    first = [len(row.prompt_ids) - 1 + skip for row in rows]
    for place, row in enumerate(rows):
        yield min(chosen[place, first[place] : row.length - 1].tolist(), default=0.0)
