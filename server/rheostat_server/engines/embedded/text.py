"""Text from tokens as they come: no half characters, and nothing of a stop string."""

from collections.abc import Sequence
from typing import Final

from tokenizers import Tokenizer

_CONTEXT: Final = 5
"""Tokens of the prompt that a decoder may need to see whether the first word begins with a space."""
_HALF: Final = "\ufffd"


class Detokenizer:
    """Turns one answer's tokens into text; text is held back while its last character may be unfinished."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = list(prompt[-_CONTEXT:])
        self._told = len(self._ids)
        self._told_text = self._decode(self._ids)

    def push(self, token: int) -> str:
        """What this token adds, which may be nothing, or what earlier ones began."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if len(text) <= len(self._told_text) or text.endswith(_HALF):
            return ""
        added = text[len(self._told_text) :]
        self._ids = self._ids[self._told :]
        self._told = len(self._ids)
        self._told_text = self._decode(self._ids)
        return added

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)


class StopText:
    """Passes text on up to the first stop string; what may be the beginning of one waits."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The text that can be told now. Once `stopped`, the rest is never told."""
        if not self._stops:
            return text
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        safe = len(text) - max(_overlap(text, stop) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What waited, now that nothing more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
