"""What a caller may set, as `GET /v1/control` tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rheostat.reply import Reply


@dataclass(frozen=True, slots=True)
class DialRange:
    """The least and the greatest level that may be in force; a `locked` dial always has its default."""

    min: float
    max: float
    default: float
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """A control adapter: the levels that it was trained at, and by dial the range that was measured."""

    id: str
    name: str
    base_model: str
    levels: Mapping[str, Sequence[float]]
    attainable: Mapping[str, Sequence[float]]
    calibrated: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Blend:
    """Adapters that the dials weigh: their names, the dials, and the levels of each at which weights are added up."""

    id: str
    name: str
    base_model: str
    components: Sequence[str]
    dials: Sequence[str]
    levels: Sequence[float]


@dataclass(frozen=True, slots=True)
class Envelope:
    """`outside` is what becomes of a dial beyond its range: `clamp` or `reject`.

    `reranking` is None where the server has no scorers.
    """

    dials: Mapping[str, DialRange]
    outside: str
    modes: Sequence[str]
    default_mode: str
    presets: Mapping[str, Mapping[str, Any]]
    adapters: Sequence[Adapter]
    blends: Sequence[Blend]
    prompt_version: str
    reranking: Mapping[str, Any] | None
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Envelope":
        data = reply.data
        return cls(
            dials={name: _range(told) for name, told in data["dials"].items()},
            outside=data["outside"],
            modes=tuple(data["modes"]),
            default_mode=data["default_mode"],
            presets=data["presets"],
            adapters=tuple(_adapter(told) for told in data["adapters"]),
            blends=tuple(_blend(told) for told in data.get("blends", ())),
            prompt_version=data["prompt_version"],
            reranking=data.get("reranking"),
            raw=data,
        )


def _range(told: Mapping[str, Any]) -> DialRange:
    return DialRange(told["min"], told["max"], told["default"], told.get("locked", False))


def _adapter(told: Mapping[str, Any]) -> Adapter:
    return Adapter(told["id"], told["name"], told["base_model"], told["levels"], told["attainable"], told["calibrated"])


def _blend(told: Mapping[str, Any]) -> Blend:
    return Blend(told["id"], told["name"], told["base_model"], told["components"], told["dials"], told["levels"])
