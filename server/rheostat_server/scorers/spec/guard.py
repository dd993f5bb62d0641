"""The spec of a generative safety guard, and what guards here and on other servers share of it."""

from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from rheostat_server.contract.dials import DialName
from rheostat_server.scorers.guard_formats import FORMATS, GuardFormat, GuardName
from rheostat_server.scorers.spec.common import LEAST_MASS, CommonSpec, ModelSpec

_Criteria = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, strict=False)]

_GUARD_OPTIONS: Final[dict[str, tuple[GuardName, ...]]] = {
    "risks": ("granite-guardian", "granite-guardian-3.2"),
    "guidelines": ("shieldgemma",),
    "controversial": ("qwen3guard",),
}
"""Which formats each option is for."""


class GuardOptions(CommonSpec):
    """A generative safety guard, wherever it runs: how it is asked and answers. It judges the dial safety.

    `lead` replaces what the format says that a guard writes before its verdict. Several `risks` or `guidelines` are
    asked one by one, and the lowest level counts.
    """

    format: GuardName
    least_mass: float = Field(
        default=LEAST_MASS, gt=0, le=1, description="Less on all verdicts together is no judgement."
    )
    lead: str | None = None
    risks: _Criteria | None = None
    guidelines: _Criteria | None = None
    controversial: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _options_fit(self) -> "GuardOptions":
        for option, formats in _GUARD_OPTIONS.items():
            if option in self.model_fields_set and self.format not in formats:
                raise ValueError(f"{option} is for {' and '.join(formats)}; this guard's format is {self.format}")
        return self

    @property
    def judged(self) -> tuple[DialName, ...]:
        return ("safety",)

    def guard_format(self) -> GuardFormat:
        chosen = {"risks": self.risks, "guidelines": self.guidelines, "controversial": self.controversial}
        format = FORMATS[self.format](**{option: value for option, value in chosen.items() if value is not None})
        return format if self.lead is None else replace(format, lead=self.lead)


class GuardSpec(ModelSpec, GuardOptions):
    """A guard in this process."""

    kind: Literal["guard"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int = Field(default=4096, ge=1, description="Most tokens of a prompt; longer dialogues are cut.")
    trust_remote_code: bool = False
