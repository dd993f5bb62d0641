"""An answer as it came off the wire, and numbers read off it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """The JSON of an answer, and the id by which the server's log knows the request."""

    data: Any
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; of a reranked answer those of all candidates."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, data: Mapping[str, Any] | None) -> "Usage | None":
        """None where the server counted none."""
        if not data:
            return None
        prompt, completion = data["prompt_tokens"], data.get("completion_tokens", 0)
        return cls(prompt, completion, data.get("total_tokens", prompt + completion))


@dataclass(frozen=True, slots=True)
class Scores:
    """The levels that scorers read off an answer; None where a dial could not be judged."""

    safety: float | None
    helpfulness: float | None

    @classmethod
    def of(cls, data: Mapping[str, Any] | None) -> "Scores | None":
        """None where nothing was judged."""
        return None if data is None else cls(data.get("safety"), data.get("helpfulness"))
