"""`blend.json`: several LoRA adapters as dials, each with a weight that a dial sets."""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials, Level, Limits, nearest_level
from rheostat_server.contract.digest import adapter_address
from rheostat_server.contract.manifest import (
    AdapterName,
    BaseModelReference,
    ControlTextSpec,
    Digest,
    EvaluationRow,
    TrainingRecord,
)

BLEND_FILE: Final = "blend.json"
SCHEMA_VERSION: Final = 1
MOST_WEIGHT: Final = 2.0
MOST_LEVELS: Final = 21
_DECIMALS: Final = 6
"""Of a weight: what floats add beyond them is no other blend."""


class BlendError(ValueError):
    """A blend's manifest is missing, unreadable, or not of this schema; the message says where and why."""


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_WEIGHT:
        raise ValueError(f"it must be a number from 0 to {MOST_WEIGHT:g}")
    return value


Weight = Annotated[float, Field(ge=0, le=MOST_WEIGHT, allow_inf_nan=False), BeforeValidator(_number)]
"""The factor of an adapter's change to the base model; at 1 it is the adapter as it was trained.

None is below 0: an adapter taken away undoes what it was trained for, and a safety patch turned round is a jailbreak.
"""


def _inner_folder(folder: str) -> str:
    path = Path(folder)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ValueError(f"it is {folder!r}; it must be a folder within the blend's own, such as experts/safety")
    return folder


InnerFolder = Annotated[str, AfterValidator(_inner_folder)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WeightCurve(_Part):
    """A weight by a dial: straight lines between points, level before the first one and after the last."""

    dial: DialName
    points: list[tuple[Level, Weight]] = Field(min_length=2)

    @model_validator(mode="after")
    def _monotone(self) -> "WeightCurve":
        """So that a dial turned up never undoes what it did before."""
        for (left, _), (right, _) in pairwise(self.points):
            if left >= right:
                raise ValueError(f"points are at {left:g} and {right:g}; they must ascend in the dial")
        weights = [weight for _, weight in self.points]
        if weights not in (sorted(weights), sorted(weights, reverse=True)):
            raise ValueError(f"weights are {weights}; they must only rise or only fall with {self.dial}")
        return self

    def at(self, dials: Dials) -> float:
        """The weight at the dial's value, linear between two points."""
        value = dials.as_dict()[self.dial]
        if value <= self.points[0][0]:
            return self.points[0][1]
        for (left, low), (right, high) in pairwise(self.points):
            if value <= right:
                return low + (high - low) * (value - left) / (right - left)
        return self.points[-1][1]


_CURVE: Final = "<curve>"
_NUMBER: Final = "<number>"


def _kind(value: object) -> str:
    return _CURVE if isinstance(value, (dict, WeightCurve)) else _NUMBER


class Component(_Part):
    """One adapter of a blend: a PEFT folder within the blend's, and its weight: of a dial, or always the same.

    `weights_digest` is `digest.adapter_digest` of the folder.
    """

    name: AdapterName
    folder: InnerFolder
    weights_digest: Digest
    weight: Annotated[
        Annotated[WeightCurve, Tag(_CURVE)] | Annotated[Weight, Tag(_NUMBER)],
        Discriminator(_kind),
    ]

    def at(self, dials: Dials) -> float:
        weight = self.weight.at(dials) if isinstance(self.weight, WeightCurve) else self.weight
        return round(weight, _DECIMALS) + 0.0


class BlendManifest(_Part):
    """The content of `blend.json`. Schema version 1.

    At dials d the model served is W + Σ_k w_k(d)·s_k·B_k A_k, w_k the weights and s_k PEFT's scaling. `grid` is the
    number of levels of each dial, evenly spaced on [0, 1], at which blends are made. With `control_text` the prompt
    bears that text too, for a component that was trained with it.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: AdapterName
    base_model: BaseModelReference
    components: list[Component] = Field(min_length=1)
    grid: int = Field(default=5, ge=2, le=MOST_LEVELS)
    control_text: ControlTextSpec | None = None
    training: TrainingRecord
    evaluation: list[EvaluationRow] = Field(default_factory=list)
    licence: str

    @model_validator(mode="after")
    def _dialled(self) -> "BlendManifest":
        names = [component.name for component in self.components]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"components: two are named {twice[0]!r}; names must differ")
        if not self.dials and self.control_text is None:
            raise ValueError("components: no weight is set by a dial; one at least must be, or control_text be given")
        return self

    @property
    def dials(self) -> list[DialName]:
        """Those that set a weight."""
        bound = {each.weight.dial for each in self.components if isinstance(each.weight, WeightCurve)}
        return [name for name in DIAL_NAMES if name in bound]

    @property
    def levels(self) -> list[float]:
        """The values of a dial at which blends are made."""
        return [step / (self.grid - 1) for step in range(self.grid)]

    def grid_point(self, dials: Dials, within: Limits) -> Dials:
        """The levels nearest to the dials, among those within an operator's limits; where none is, the nearer limit."""
        return dials.replaced(
            {
                name: nearest_level(self.levels, value, within.get(name, (0.0, 1.0)))
                for name, value in dials.as_dict().items()
            }
        )

    def weights_at(self, dials: Dials) -> dict[str, float]:
        """The weight of each component, by its name."""
        return {component.name: component.at(dials) for component in self.components}

    def address(self, weights: Mapping[str, float]) -> str:
        """`name@` and a digest of what is blended: equal weights of equal files have one address, in any process."""
        blended = [(each.weights_digest, weights[each.name]) for each in self.components if weights[each.name]]
        digest = hashlib.sha256(json.dumps([self.base_model.digest, blended]).encode())
        return adapter_address(self.name, f"sha256:{digest.hexdigest()}")


def read_blend(folder: Path) -> BlendManifest:
    """The manifest of a blend's folder.

    Raises:
        BlendError: the file is missing, is not JSON, or does not fit the schema; the message names every field at
            fault and its value.
    """
    path = folder / BLEND_FILE
    try:
        return BlendManifest.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise BlendError(f"{path} does not exist; a blend's folder needs its manifest") from None
    except ValidationError as exc:
        told = "; ".join(_told(error) for error in exc.errors(include_url=False, include_context=False))
        raise BlendError(f"{path} is not a valid blend: {told}") from exc
    except ValueError as exc:
        raise BlendError(f"{path} is not valid JSON: {exc}") from exc


def write_blend(manifest: BlendManifest, folder: Path) -> Path:
    """Writes `blend.json` whole or not at all, and returns its path."""
    path = folder / BLEND_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(manifest.model_dump_json(indent=2) + "\n")
    partial.replace(path)
    return path


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part not in (_CURVE, _NUMBER)) or "the file"
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    return f"{place}: {message}" if isinstance(value, (dict, list)) else f"{place} is {value!r}: {message}"
