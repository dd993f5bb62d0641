"""The prompt mode: five worded levels a dial, said in the system message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rheostat_server.contract.control_text import Message, append_text
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials
from rheostat_server.errors import CannotStart

SYSTEM_ROLES = ("system", "developer")
FiveLevels = Annotated[list[str], Field(min_length=5, max_length=5)]


class WordingsError(CannotStart):
    """The wordings file cannot be read or does not fit; the message says where and why."""


class _WordingsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: str = Field(min_length=1)
    safety: FiveLevels
    helpfulness: FiveLevels


@dataclass(frozen=True, slots=True)
class Wordings:
    """Sentences for the levels 0, 0.25, 0.5, 0.75 and 1 of each dial; `version` names them in the receipt."""

    version: str
    levels: Mapping[DialName, tuple[str, ...]]

    def render(self, dials: Dials) -> str:
        """One sentence a dial, each of the level nearest to its value, safety first."""
        return " ".join(self._nearest(name, dials) for name in DIAL_NAMES)

    def _nearest(self, name: DialName, dials: Dials) -> str:
        sentences = self.levels[name]
        return sentences[round(dials.as_dict()[name] * (len(sentences) - 1))]


def read_wordings(path: Path) -> Wordings:
    """The operator's own wordings.

    Raises:
        WordingsError: the file is missing, is not YAML, or lacks a level.
    """
    try:
        return _parse(path.read_text())
    except (OSError, yaml.YAMLError, ValidationError) as exc:
        raise WordingsError(f"{path} holds no wordings: {exc}") from exc


@cache
def default_wordings() -> Wordings:
    return _parse(files("rheostat_server.modes").joinpath("wordings.yaml").read_text())


def _parse(text: str) -> Wordings:
    parsed = _WordingsFile.model_validate(yaml.safe_load(text))
    return Wordings(parsed.version, {"safety": tuple(parsed.safety), "helpfulness": tuple(parsed.helpfulness)})


def with_instruction(messages: Sequence[Message], text: str) -> list[dict[str, Any]]:
    """A copy of `messages` whose system message ends in `text`; one is put first if there is none."""
    result = [dict(message) for message in messages]
    for message in result:
        if message.get("role") in SYSTEM_ROLES:
            message["content"] = append_text(message.get("content"), text, separator="\n\n")
            return result
    return [{"role": "system", "content": text}, *result]
