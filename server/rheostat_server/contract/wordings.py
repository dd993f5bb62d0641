"""Dials in words: a sentence for each of five levels a dial, the same in serving and in training."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from rheostat_server.contract.control_text import Message, append_text
from rheostat_server.contract.dials import DIAL_NAMES, DialName, Dials, Limits

SYSTEM_ROLES: Final = ("system", "developer")
FiveLevels = Annotated[tuple[str, ...], Field(min_length=5, max_length=5)]


class Wordings(BaseModel):
    """Sentences for the levels 0, 0.25, 0.5, 0.75 and 1 of each dial; `version` names them in the receipt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str = Field(min_length=1)
    safety: FiveLevels
    helpfulness: FiveLevels

    def levels(self) -> Mapping[DialName, tuple[str, ...]]:
        return {"safety": self.safety, "helpfulness": self.helpfulness}

    def writable(self, dials: Dials, within: Limits) -> Dials:
        """The nearest levels that there are sentences for, within an operator's limits where one lies there."""
        return dials.stepped({name: len(sentences) - 1 for name, sentences in self.levels().items()}, within)

    def render(self, dials: Dials) -> str:
        """One sentence a dial, each of the level nearest to its value, safety first."""
        return " ".join(self._nearest(name, dials) for name in DIAL_NAMES)

    def apply(self, messages: Sequence[Message], dials: Dials) -> list[dict[str, Any]]:
        """`messages` with the rendered sentences at the end of the system message, see `with_instruction`."""
        return with_instruction(messages, self.render(dials))

    def _nearest(self, name: DialName, dials: Dials) -> str:
        sentences = self.levels()[name]
        return sentences[round(dials.as_dict()[name] * (len(sentences) - 1))]


@cache
def default_wordings() -> Wordings:
    return Wordings.model_validate_json(files("rheostat_server.contract").joinpath("wordings.json").read_bytes())


def with_instruction(messages: Sequence[Message], text: str) -> list[dict[str, Any]]:
    """A copy of `messages` that begins with a system message, and each of whose system messages ends in `text`.

    Chat templates differ in what they print of several: the first, the last, or all; and some know no "developer".
    """
    result = [dict(message) for message in messages]
    for message in result:
        if message.get("role") in SYSTEM_ROLES:
            message["content"] = append_text(message.get("content"), text, separator="\n\n")
    if result and result[0].get("role") == "system":
        return result
    return [{"role": "system", "content": text}, *result]
