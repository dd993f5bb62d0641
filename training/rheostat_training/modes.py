"""The ways to obey dials that an evaluation sets side by side, asked of a model as the server would ask."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from rheostat_server.contract.wordings import default_wordings
from rheostat_server.reranking.selection import Target, choose
from rheostat_server.scorers import Dialogue, Scores
from rheostat_training.rows import Messages, Prompt, Request, Sample
from rheostat_training.score import Judge

RERANK: Final = "rerank-"
KNOWN: Final = f"adapter, prompt, off, {RERANK}N, with N from 2 to 256"


def is_mode(mode: str) -> bool:
    """Whether an evaluation knows the mode; `KNOWN` says which it does."""
    return mode in ("adapter", "prompt", "off") or candidates(mode) is not None


def candidates(mode: str) -> int | None:
    """N of `rerank-N`; None for another mode."""
    count = mode.removeprefix(RERANK)
    return int(count) if count != mode and count.isdecimal() and 2 <= int(count) <= 256 else None


def in_mode(mode: str, request: Request) -> Request:
    """What a model reads of a dialled request: control text, a worded system message, or nothing of the dials."""
    if mode == "adapter":
        return request
    if mode != "prompt":
        return replace(request, written=False)
    if request.dials is None:
        raise ValueError(f"request {request.id!r} has no dials; the prompt mode words them")
    worded = default_wordings().apply(request.messages, request.dials)
    return replace(request, messages=as_messages(worded), written=False)


def reranked(
    prompts: Mapping[str, Prompt], samples: Sequence[Sample], requests: Sequence[Request], judge: Judge
) -> list[Sample]:
    """For each dialled request the candidate of its prompt nearest to its dials.

    y* = argmin_i |S_h(x, y_i) − h| + |S_s(x, y_i) − s| (arXiv 2404.01295, reconstruction). A candidate that could not
    be judged is not chosen; where none could be, the first one is the answer.
    """
    scores = judge.judge([Dialogue(prompts[sample.prompt_id].messages, sample.answer) for sample in samples])
    found: dict[str, list[tuple[Sample, Scores]]] = {}
    for sample, score in zip(samples, scores, strict=True):
        found.setdefault(sample.prompt_id, []).append((sample, score))
    return [_nearest(found[request.id], request) for request in requests]


def _nearest(candidates: Sequence[tuple[Sample, Scores]], request: Request) -> Sample:
    """The server's own choice; without a floor there always is one."""
    if request.dials is None:
        raise ValueError(f"request {request.id!r} has no dials; reranking needs them")
    place = choose([score for _, score in candidates], Target(request.dials)).place or 0
    return replace(candidates[place][0], dials=request.dials)


def as_messages(messages: Sequence[Mapping[str, str]]) -> Messages:
    """Messages of roles and texts, as requests hold them."""
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)
