"""What a stream said, for an audit log that holds content."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from rheostat_server.sse import EventReader


@dataclass(slots=True)
class Heard:
    """The texts of a stream's choices, whose events may be cut anywhere."""

    texts: dict[int, list[str]] = field(default_factory=dict)
    _reader: EventReader = field(default_factory=EventReader)

    def take(self, chunk: bytes) -> None:
        for data in self._reader.take(chunk):
            with suppress(orjson.JSONDecodeError):
                self._take_event(orjson.loads(data))

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
