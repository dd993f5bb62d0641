"""The part of OpenAI's chat body that the fake engine honours; it refuses the rest."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rheostat_server.errors import InvalidField, UnsupportedField


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    continuous_usage_stats: bool = False


class FakeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: int = Field(default=1, ge=1)
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_as_list)] = []
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    ignore_eos: bool = False
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def prompt_tokens(self) -> int:
        """One for each message, and one for each of its words."""
        return sum(1 + len(str(message.get("content")).split()) for message in self.messages)


def read_request(body: Mapping[str, Any]) -> FakeRequest:
    """The checked request.

    Raises:
        UnsupportedField, InvalidField: a field is unknown, or has a wrong value.
    """
    try:
        return FakeRequest.model_validate({name: value for name, value in body.items() if value is not None})
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            raise UnsupportedField(f"{name} is not supported by the fake engine; leave it out", param=name) from None
        raise InvalidField(f"{name} is {error['input']!r}: {error['msg']}", param=name) from None
