"""What a request asks of the dials."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from rheostat_server.contract.dials import DialName

AT_THE_END: Final = "end"


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """What a request asks of the dials; None and absent dials mean that it does not say.

    `choose_after` is the number of tokens after which a stream's candidate is chosen, or `AT_THE_END`; `early_stop`
    says whether candidates may be dropped before they are whole.
    """

    dials: Mapping[DialName, float] = field(default_factory=dict)
    mode: str | None = None
    adapter: str | None = None
    candidates: int | None = None
    preset: str | None = None
    choose_after: int | Literal["end"] | None = None
    early_stop: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """What the request said; what it did not say is absent."""
        others = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "dials"}
        said: dict[str, Any] = {str(name): value for name, value in self.dials.items()}
        return said | {name: value for name, value in others.items() if value is not None}
