"""`control.json`: what an adapter is, which base model it obeys on, how it is controlled, and what was measured."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rheostat_server.contract.calibration import Calibration
from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials, Level, Limits
from rheostat_server.contract.digest import adapter_address

MANIFEST_FILE: Final = "control.json"
SCHEMA_VERSION: Final = 1

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ManifestError(ValueError):
    """A manifest is missing, unreadable, or not of this schema; the message says where and why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseModelReference(_Part):
    """The model that the adapter was trained on; `digest` is `digest.base_model_digest` of its folder."""

    name: str
    revision: str | None = None
    digest: Digest


class DialLevels(_Part):
    """The levels, ascending, at which a dial was trained, and the mean scores measured at its two ends."""

    levels: list[Level] = Field(min_length=2)
    attainable: tuple[Level, Level] | None = None

    @field_validator("levels")
    @classmethod
    def _ascending(cls, levels: list[float]) -> list[float]:
        if levels != sorted(levels):
            raise ValueError(f"levels are {levels}; they must ascend")
        return levels

    def nearest(self, value: float, within: tuple[float, float] = (0.0, 1.0)) -> float:
        """The level nearest to a value, the upper of two, among those within an operator's limits; else the value."""
        allowed = [level for level in self.levels if within[0] <= level <= within[1]]
        return min(allowed, key=lambda level: (abs(level - value), -level), default=value)


class ControlTextSpec(_Part):
    template: str
    placement: Literal["last_user_suffix"] = "last_user_suffix"

    @field_validator("template")
    @classmethod
    def _checked(cls, template: str) -> str:
        return ControlText(template).template


class TrainingRecord(_Part):
    """How the adapter was made: method, its settings, and the digests of the data it saw, by name."""

    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    data_digests: dict[str, Digest]
    software: dict[str, str] = Field(default_factory=dict)


class EvaluationRow(_Part):
    """One measured row: the figures of `metrics` for one dial, mode and judge."""

    mode: str
    dial: DialName
    judge: str
    prompts: int = Field(ge=1)
    metrics: dict[str, float]


class Manifest(_Part):
    """The content of `control.json`. Schema version 1."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: AdapterName
    base_model: BaseModelReference
    dials: dict[DialName, DialLevels]
    control_text: ControlTextSpec
    training: TrainingRecord
    calibration: Calibration | None = None
    evaluation: list[EvaluationRow] = Field(default_factory=list)
    licence: str
    weights_digest: Digest

    @field_validator("dials")
    @classmethod
    def _every_dial(cls, dials: dict[DialName, DialLevels]) -> dict[DialName, DialLevels]:
        if set(dials) != set(DIAL_NAMES):
            raise ValueError(f"dials are {sorted(dials)}; they must be {sorted(DIAL_NAMES)}")
        return dials

    @property
    def id(self) -> str:
        """The address by content, see `adapter_address`."""
        return adapter_address(self.name, self.weights_digest)

    def nearest_levels(self, dials: Dials, *, within: Limits) -> Dials:
        """The trained levels nearest to the dials, within an operator's limits by dial."""
        return dials.replaced(
            {
                name: self.dials[name].nearest(value, within.get(name, (0.0, 1.0)))
                for name, value in dials.as_dict().items()
            }
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an adapter folder.

    Raises:
        ManifestError: the file is missing, is not JSON, or does not fit the schema.
    """
    path = folder / MANIFEST_FILE
    try:
        return Manifest.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise ManifestError(
            f"{path} does not exist; an adapter folder needs the manifest that training wrote"
        ) from None
    except (ValidationError, ValueError) as exc:
        raise ManifestError(f"{path} is not a valid manifest: {exc}") from exc


def write_manifest(manifest: Manifest, folder: Path) -> Path:
    """Writes `control.json` whole or not at all, and returns its path."""
    path = folder / MANIFEST_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(manifest.model_dump_json(indent=2) + "\n")
    partial.replace(path)
    return path
