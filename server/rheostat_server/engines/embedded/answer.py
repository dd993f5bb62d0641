"""Pieces become OpenAI's completion, or its chunks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from tokenizers import Tokenizer

from rheostat_server.engines import Completion
from rheostat_server.engines.embedded.mailbox import Piece, TokenScore
from rheostat_server.engines.embedded.request import ChatRequest, StreamOptions

_HALF: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer has in common."""

    request_id: str
    model: str
    prompt_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.request_id}", "object": kind, "created": self.created, "model": self.model}

    def usage(self, completion_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }


def completion(head: Head, pieces: Iterable[Piece], *, tokenizer: Tokenizer, logprobs: bool) -> Completion:
    """The whole answer, from one piece for each candidate."""
    ordered = sorted(pieces, key=lambda piece: piece.candidate)
    return {
        **head.fields("chat.completion"),
        "choices": [
            {
                "index": piece.candidate,
                "message": {"role": "assistant", "content": piece.text, "refusal": None},
                "logprobs": _logprobs(piece, tokenizer) if logprobs else None,
                "finish_reason": piece.finish_reason,
            }
            for piece in ordered
        ],
        "usage": head.usage(sum(piece.tokens for piece in ordered)),
    }


class Chunks:
    """Writes one stream's events, and counts what they told."""

    def __init__(self, head: Head, tokenizer: Tokenizer, request: ChatRequest) -> None:
        options = request.stream_options or StreamOptions()
        self._head = head
        self._fields = head.fields("chat.completion.chunk")
        self._tokenizer = tokenizer
        self._logprobs = request.logprobs
        self._usage = options.include_usage
        self._running_usage = options.continuous_usage_stats
        self._counts = [0] * request.n

    def opening(self) -> bytes:
        """For each candidate the chunk that names the role."""
        return b"".join(self._chunk(i, {"role": "assistant", "content": ""}) for i in range(len(self._counts)))

    def grown(self, piece: Piece) -> bytes:
        """A chunk with the text, and one with the finish reason when the candidate has ended."""
        self._counts[piece.candidate] += piece.tokens
        events = b""
        if piece.text or piece.scores:
            logprobs = _logprobs(piece, self._tokenizer) if self._logprobs else None
            events = self._chunk(piece.candidate, {"content": piece.text}, logprobs=logprobs)
        if piece.finish_reason:
            events += self._chunk(piece.candidate, {}, finish_reason=piece.finish_reason)
        return events

    def ending(self) -> bytes:
        """The usage, if it was asked for."""
        if not self._usage:
            return b""
        return self._event({"choices": [], "usage": self._head.usage(sum(self._counts))})

    def _chunk(
        self,
        candidate: int,
        delta: Mapping[str, str],
        *,
        logprobs: Mapping[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        choice = {"index": candidate, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        event: dict[str, Any] = {"choices": [choice]}
        if self._usage:
            event["usage"] = self._head.usage(self._counts[candidate]) if self._running_usage else None
        return self._event(event)

    def _event(self, content: Mapping[str, Any]) -> bytes:
        return b"data: " + orjson.dumps({**self._fields, **content}) + b"\n\n"


def _logprobs(piece: Piece, tokenizer: Tokenizer) -> dict[str, Any]:
    return {"content": [_score(score, tokenizer) for score in piece.scores], "refusal": None}


def _score(score: TokenScore, tokenizer: Tokenizer) -> dict[str, Any]:
    top: Sequence[dict[str, Any]] = [_token(token, value, tokenizer) for token, value in score.top.items()]
    return {**_token(score.token, score.logprob, tokenizer), "top_logprobs": top}


def _token(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    """A token alone; its bytes are unknown where it holds part of a character."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    return {"token": text, "logprob": logprob, "bytes": None if _HALF in text else list(text.encode())}
