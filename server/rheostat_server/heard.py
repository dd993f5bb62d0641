"""What a stream said, for an audit log that holds content."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

_EVENT_END: Final = b"\n\n"
_DATA: Final = b"data:"


@dataclass(slots=True)
class Heard:
    """The texts of a stream's choices, whose events may be cut anywhere."""

    texts: dict[int, list[str]] = field(default_factory=dict)
    _cut: bytes = b""

    def take(self, chunk: bytes) -> None:
        *events, self._cut = (self._cut + chunk).split(_EVENT_END)
        for event in events:
            with suppress(orjson.JSONDecodeError):
                self._take_event(orjson.loads(event.removeprefix(_DATA)))

    @property
    def choices(self) -> list[dict[str, Any]]:
        """As a whole answer's."""
        return [
            {"index": index, "message": {"role": "assistant", "content": "".join(text)}}
            for index, text in sorted(self.texts.items())
        ]

    def _take_event(self, event: Any) -> None:
        for choice in event.get("choices") or () if isinstance(event, Mapping) else ():
            said = (choice.get("delta") or {}).get("content")
            if said:
                self.texts.setdefault(choice.get("index", 0), []).append(said)
