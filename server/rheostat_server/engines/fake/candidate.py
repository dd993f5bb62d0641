"""One candidate of the fake engine: words drawn by a hash of all that may decide an answer."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal

WORDS: Final = (
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "hazel",
    "inlet",
    "jade",
    "kelp",
    "linen",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """`pieces` are the tokens' texts, the last one cut where a stop text begins."""

    pieces: Sequence[str]
    finish_reason: Literal["stop", "length"]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def draw(key: str, *, words: int, limit: int, stop: Sequence[str]) -> Candidate:
    """The candidate of `key`: `words` long, unless `limit` or a text of `stop` ends it before."""
    pieces = list(islice(_pieces(key), min(words, limit)))
    text = "".join(pieces)
    found = [at for at in (text.find(stop_text) for stop_text in stop) if at >= 0]
    if found:
        return Candidate(list(_cut(pieces, min(found))), "stop")
    return Candidate(pieces, "length" if limit < words else "stop")


def logprobs(pieces: Sequence[str], *, top: int) -> dict[str, Any]:
    """OpenAI's `logprobs` object: each token as likely as a word drawn from all."""
    alike = [(word, -3.0 - rank) for rank, word in enumerate(WORDS[:top])]
    return {"content": [{**_entry(piece, -3.0), "top_logprobs": [_entry(*pair) for pair in alike]} for piece in pieces]}


def _entry(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _pieces(key: str) -> Iterator[str]:
    position = 0
    while True:
        drawn = hashlib.sha256(f"{key}\0{position}".encode()).digest()[0]
        yield WORDS[drawn % len(WORDS)] if position == 0 else f" {WORDS[drawn % len(WORDS)]}"
        position += 1


def _cut(pieces: Sequence[str], length: int) -> Iterator[str]:
    for piece in pieces:
        if length <= 0:
            return
        yield piece[:length]
        length -= len(piece)
