"""A chat request as asked: OpenAI's body without `control`, what was asked of the dials, and by whom it was asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rheostat_server.callers import Caller
from rheostat_server.control_request import ControlRequest


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`model` is the base model's name, its preset already split off; `body` is everything that is not ours."""

    model: str
    body: Mapping[str, Any]
    control: ControlRequest
    request_id: str
    caller: Caller = field(default_factory=Caller)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def wants_stream(self) -> bool:
        return self.body.get("stream") is True
