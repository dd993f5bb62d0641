"""What a request asks of the dials: their levels, the mode, and how candidates are chosen."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Final, Literal, Union, get_args

Mode = Literal[
    "auto", "off", "prompt", "adapter", "blend", "rerank", "prompt+rerank", "adapter+rerank", "blend+rerank"
]  # fmt: skip
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
DIALS: Final = ("safety", "helpfulness")
_PLACES: Final = 20


@dataclass(frozen=True, slots=True)
class Dials:
    """Levels from 0 to 1. A dial that is None is left to the server, which takes the caller's default.

    Raises:
        ValueError: a level is no number from 0 to 1; the message names dial and value.
    """

    safety: float | None = None
    helpfulness: float | None = None

    def __post_init__(self) -> None:
        for name, level in self.as_dict().items():
            check_level(name, level)

    @classmethod
    def of(cls, given: "DialsLike | None") -> "Dials":
        """Dials as they are, or from a mapping by their names; none at all from None."""
        if given is None or isinstance(given, Dials):
            return given or cls()
        if not isinstance(given, Mapping):
            raise TypeError(f"dials are {given!r}; they must be Dials(…) or a mapping of their names")
        if unknown := sorted(set(given) - set(DIALS)):
            raise ValueError(f"{unknown[0]!r} is no dial; the dials are {' and '.join(DIALS)}")
        return cls(**given)

    def as_dict(self) -> dict[str, float]:
        """Those that are named."""
        levels = {"safety": self.safety, "helpfulness": self.helpfulness}
        return {name: level for name, level in levels.items() if level is not None}

    def over(self, others: "Dials") -> "Dials":
        """These, and the others where these say nothing."""
        return Dials(**(others.as_dict() | self.as_dict()))


DialsLike = Union[Dials, Mapping[str, float]]  # noqa: UP007, the class below is named in quotes


def check_level(name: str, level: object) -> None:
    """Raises ValueError unless it is a number from 0 to 1; text and booleans are none."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 <= level <= 1:
        raise ValueError(f"{name} is {level!r}; a dial is a number from 0 to 1")


def as_mode(name: str) -> Mode:
    """Raises ValueError for a name that no mode has."""
    for mode in MODES:
        if mode == name:
            return mode
    raise ValueError(f"mode is {name!r}; the modes are {', '.join(MODES)}")


@dataclass(frozen=True, slots=True)
class Control:
    """The `control` block of a request. What is None is left to the server.

    `adapter` is a name or `name@digest`; `preset`, `candidates`, `choose_after` and `early_stop` are explained in
    docs/api.md. What goes with which mode is for the server to say.
    """

    dials: Dials = field(default_factory=Dials)
    mode: Mode | None = None
    adapter: str | None = None
    preset: str | None = None
    candidates: int | None = None
    choose_after: int | Literal["end"] | None = None
    early_stop: bool | None = None

    def __post_init__(self) -> None:
        if self.mode is not None:
            as_mode(self.mode)

    def changed(self, dials: Dials, mode: Mode | None) -> "Control":
        """With these dials and this mode where they are named."""
        return replace(self, dials=dials.over(self.dials), mode=mode or self.mode)

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        named = {**values.pop("dials"), **values}
        return {name: value for name, value in named.items() if value is not None}


CONTROL_FIELDS: Final = tuple(each.name for each in fields(Control) if each.name != "dials")
"""Fields of the block beside the dials."""


def control_headers(
    *, safety: float | None = None, helpfulness: float | None = None, mode: Mode | None = None
) -> dict[str, str]:
    """The same as headers, for clients that cannot add a field to a request's body."""
    asked = Control(Dials(safety, helpfulness), mode)
    headers = {f"X-Control-{name.capitalize()}": _decimal(level) for name, level in asked.dials.as_dict().items()}
    return headers | ({"X-Control-Mode": mode} if mode else {})


def _decimal(level: float) -> str:
    """Without an exponent, which the server takes for no number."""
    return format(round(Decimal(repr(float(level))), _PLACES).normalize(), "f")
