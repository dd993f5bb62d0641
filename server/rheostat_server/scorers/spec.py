"""What an operator writes of the scorers: one YAML file, checked whole before anything is loaded.

```yaml
scorers:
  - {kind: classifier, dial: safety, model: /models/safety-reward}
  - {kind: classifier, dial: helpfulness, model: /models/helpful-reward, weight: 2}
  - {kind: guard, format: qwen3guard, model: /models/qwen3guard-gen-0.6b}
```
"""

from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rheostat_server.errors import CannotStart
from rheostat_server.scorers.batching import Limits
from rheostat_server.scorers.guard_formats import FORMATS, GuardFormat, GuardName


class ScorersError(CannotStart):
    """The scorers' file cannot be read or does not fit; the message says where and why."""


class CommonSpec(BaseModel):
    """What every scorer may be told. A `name` left out is made of the model's.

    `weight` is its share where several scorers judge one dial: a level is their weighted mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+/@-]{0,63}$")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    max_batch: int = Field(default=64, ge=1)
    max_queue: int = Field(default=1024, ge=1)
    deadline: float = Field(default=10.0, gt=0, allow_inf_nan=False, description="Seconds.")

    @property
    def limits(self) -> Limits:
        return Limits(batch=self.max_batch, queue=self.max_queue, deadline=self.deadline)


_Criteria = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, strict=False)]

_GUARD_OPTIONS: Final[dict[str, tuple[GuardName, ...]]] = {
    "risks": ("granite-guardian", "granite-guardian-3.2"),
    "guidelines": ("shieldgemma",),
    "controversial": ("qwen3guard",),
}
"""Which formats each option is for."""


class GuardSpec(CommonSpec):
    """A generative safety guard in this process; it judges the dial safety.

    `lead` replaces what the format says that a guard writes before its verdict. Several `risks` or `guidelines` are
    asked one by one, and the lowest level counts.
    """

    kind: Literal["guard"]
    format: GuardName
    model: str = Field(min_length=1, description="A folder, or a name on a hub.")
    revision: str | None = None
    device: str = Field(default="cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    least_mass: float = Field(default=0.1, gt=0, le=1, description="Less on all verdicts together is no judgement.")
    max_tokens: int = Field(default=4096, ge=1, description="Most tokens of a prompt; longer dialogues are cut.")
    trust_remote_code: bool = False
    lead: str | None = None
    risks: _Criteria | None = None
    guidelines: _Criteria | None = None
    controversial: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _options_fit(self) -> "GuardSpec":
        for option, formats in _GUARD_OPTIONS.items():
            if option in self.model_fields_set and self.format not in formats:
                raise ValueError(f"{option} is for {' and '.join(formats)}; this guard's format is {self.format}")
        return self

    def guard_format(self) -> GuardFormat:
        chosen = {"risks": self.risks, "guidelines": self.guidelines, "controversial": self.controversial}
        format = FORMATS[self.format](**{option: value for option, value in chosen.items() if value is not None})
        return format if self.lead is None else replace(format, lead=self.lead)
