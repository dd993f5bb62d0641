"""What a request asks of the dials, from its body, its headers and its model's name, in that order of precedence."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rheostat_server.contract.dials import DIAL_NAMES, DialName, Level, check_dial
from rheostat_server.control_request import ControlRequest
from rheostat_server.errors import InvalidField, UnknownMode, UnknownModel, UnknownPreset
from rheostat_server.modes import KNOWN_MODES

DIAL_HEADERS: Final[Mapping[str, DialName]] = {
    "x-control-safety": "safety",
    "x-control-helpfulness": "helpfulness",
}
MODE_HEADER: Final = "x-control-mode"
KNOWN_HEADERS: Final = (*DIAL_HEADERS, MODE_HEADER)
DECIMAL: Final = r"0?\.[0-9]{1,20}|0|1(\.0{1,20})?"
"""A dial in a header."""
MOST: Final = 2**31 - 1
"""Candidates and tokens that a request may name; what may be had of them is far less."""
_RIGHT: Final[Mapping[str, str]] = {
    **dict.fromkeys(DIAL_NAMES, "a number from 0 to 1"),
    "mode": "the name of a mode",
    "adapter": "the name of an adapter or blend",
    "candidates": f"a whole number from 1 to {MOST}",
    "preset": "the name of a preset",
    "choose_after": f"a whole number of tokens from 1 to {MOST}, or 'end'",
    "early_stop": "true or false",
}
"""What each field of the block must be."""


def _unset() -> float:
    """Stands where a dial was left out; `model_fields_set` tells, and the schema shows no default."""
    return 0.0


ChooseAfter = Annotated[int, Field(ge=1, le=MOST)] | Literal["end"]


class ControlBlock(BaseModel):
    """The `control` object of a chat request. A dial left out takes the caller's default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    safety: Level = Field(default_factory=_unset, description="How safe the answer must be, from 0 to 1.")
    helpfulness: Level = Field(default_factory=_unset, description="How helpful the answer must be, from 0 to 1.")
    mode: str | None = Field(
        default=None,
        description="How the dials are put in force.",
        json_schema_extra={"anyOf": [{"enum": list(KNOWN_MODES)}, {"type": "null"}]},
    )
    adapter: str | None = Field(default=None, description="Name or name@digest of an adapter or blend.")
    candidates: int | None = Field(default=None, ge=1, le=MOST, description="How many candidates to choose from.")
    preset: str | None = Field(default=None, description="Name of a preset.")
    choose_after: ChooseAfter | None = Field(
        default=None, description="Tokens after which a stream's candidate is chosen; `end` compares whole answers."
    )
    early_stop: bool | None = Field(
        default=None, description="Whether candidates that fall behind are dropped before they are whole."
    )

    def as_asked(self) -> ControlRequest:
        values: dict[DialName, float] = {"safety": self.safety, "helpfulness": self.helpfulness}
        dials: dict[DialName, float] = {n: value for n, value in values.items() if n in self.model_fields_set}
        return ControlRequest(
            dials, self.mode, self.adapter, self.candidates, self.preset, self.choose_after, self.early_stop
        )


def read_control(block: object, headers: Mapping[str, str], preset: str | None) -> ControlRequest:
    """Body before header before the preset in the model's name.

    Raises:
        InvalidField: a field or header has a wrong value, or is not known; the message names it, its value, and what
            would be right.
    """
    body = _read_block(block)
    header_dials, header_mode = _read_headers(headers)
    return ControlRequest(
        dials={**header_dials, **body.dials},
        mode=header_mode if body.mode is None else body.mode,
        adapter=body.adapter,
        candidates=body.candidates,
        preset=preset if body.preset is None else body.preset,
        choose_after=body.choose_after,
        early_stop=body.early_stop,
    )


def split_preset(model: str, models: Sequence[str], presets: Mapping[str, Any]) -> tuple[str, str | None]:
    """`demo:strict` as ("demo", "strict"); a name that the engine has is taken whole.

    Raises:
        UnknownModel, UnknownPreset: neither.
    """
    if model in models:
        return model, None
    base, colon, preset = model.rpartition(":")
    if not colon or base not in models:
        raise UnknownModel(model, [*models, *(f"{models[0]}:{name}" for name in presets)])
    if preset not in presets:
        raise UnknownPreset(preset, presets, param="model")
    return base, preset


def _read_block(block: object) -> ControlRequest:
    if block is None:
        return ControlRequest()
    if not isinstance(block, dict):
        raise InvalidField(f"control is {_short(block)}; it must be an object", param="control")
    try:
        return ControlBlock.model_validate(block).as_asked()
    except ValidationError as exc:
        raise _invalid(exc) from exc


def _invalid(exc: ValidationError) -> InvalidField:
    first = exc.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        known = ", ".join(ControlBlock.model_fields)
        return InvalidField(f"Unknown field {name!r} in control; known fields: {known}.", param=f"control.{name}")
    return InvalidField(
        f"control.{name} is {_short(first['input'])}; it must be {_RIGHT[name]}", param=f"control.{name}"
    )


def _read_headers(headers: Mapping[str, str]) -> tuple[dict[DialName, float], str | None]:
    ours = {name: value for name, value in headers.items() if name.startswith("x-control-")}
    for name in ours:
        if name not in KNOWN_HEADERS:
            raise InvalidField(f"Unknown header {name!r}; known headers: {', '.join(KNOWN_HEADERS)}.", param=name)
    dials: dict[DialName, float] = {
        dial: _header_dial(name, ours[name]) for name, dial in DIAL_HEADERS.items() if name in ours
    }
    mode = ours.get(MODE_HEADER)
    if mode is not None and mode not in KNOWN_MODES:
        raise UnknownMode(mode, KNOWN_MODES, param=MODE_HEADER)
    return dials, mode


def _header_dial(header: str, text: str) -> float:
    if not re.fullmatch(DECIMAL, text.strip()):
        raise InvalidField(f"{header} is {_short(text)}; it must be a number from 0 to 1", param=header)
    value = float(text)
    try:
        check_dial(header, value)
    except ValueError as exc:
        raise InvalidField(str(exc), param=header) from exc
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
