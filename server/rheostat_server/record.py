"""What becomes of one request, noted as it goes: the facts that the audit log and the response's headers tell."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from rheostat_server.callers import Caller
from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.control_request import ControlRequest
from rheostat_server.errors import RheostatError
from rheostat_server.tracing import NO_SPAN, Span

CANCELLED: Final = "cancelled"
"""How a request ends of which nothing else is noted: its caller went away."""
ASKED: Final = (*DIAL_NAMES, *(each.name for each in fields(ControlRequest) if each.name != "dials"))
"""What a request may say of the dials."""
LONGEST_NAME: Final = 200
"""Names that callers choose are cut, so that a record stays small."""


@dataclass(slots=True)
class Record:
    """One request's. `outcome` is `answered`, `refused` (by a status below 500), `failed` or `cancelled`.

    `asked` is what was asked of the dials, and `control` what the answer's own receipt says; where there is no answer,
    what the plan says. `content` is what people wrote, and is noted only where the operator has it so.
    """

    request_id: str
    route: str
    caller: Caller | None = None
    model: str | None = None
    stream: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict)
    control: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    content: dict[str, Any] = field(default_factory=dict)
    outcome: str = CANCELLED
    part_of: str | None = None
    """The request that this is a point of, in a sweep."""
    status: int | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Of the response, beside those that every response has."""
    span: Span = NO_SPAN
    began: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)

    @property
    def tokens(self) -> int:
        """Of prompt and answers, as far as they are known."""
        total = self.usage.get("total_tokens")
        return total if isinstance(total, int) else 0

    def ask(self, body: Mapping[str, Any]) -> None:
        """Notes what a body asks for, before it is known whether it is right: whatever is refused is on record."""
        model, control = body.get("model"), body.get("control")
        self.model = model if isinstance(model, str) else None
        self.stream = body.get("stream") is True
        if isinstance(control, dict):
            self.asked = {name: control[name] for name in ASKED if isinstance(control.get(name), (str, int, float))}

    def answered(self, status: int = 200) -> None:
        """Unless it is known to have failed."""
        if self.code is None:
            self.status, self.outcome = status, "answered"

    def failed(self, error: Exception) -> None:
        """An error of ours has its status and code; another one is our own fault."""
        if isinstance(error, RheostatError):
            self.status, self.code = error.status, error.known_as
        else:
            self.status, self.code = 500, "internal_error"
        self.outcome = "refused" if self.status < 500 else "failed"

    def as_json(self) -> dict[str, Any]:
        told = {
            "time": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "part_of": self.part_of,
            "route": self.route,
            "caller": self.caller and self.caller.name,
            "key": self.caller and self.caller.key,
            "envelope": self.caller and self.caller.policy.envelope.name,
            "model": self.model and self.model[:LONGEST_NAME],
            "stream": self.stream,
            "outcome": self.outcome,
            "status": self.status,
            "code": self.code,
            "seconds": round(time.perf_counter() - self.started, 4),
            "asked": {name: _short(value) for name, value in self.asked.items()} or None,
            "control": dict(self.control) or None,
            "usage": dict(self.usage) or None,
            "content": self.content or None,
        }
        return {name: value for name, value in told.items() if value is not None}


def _short(value: Any) -> Any:
    return value[:LONGEST_NAME] if isinstance(value, str) else value
