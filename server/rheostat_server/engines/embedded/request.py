"""OpenAI's chat body as this engine understands it: checked, and refused where it asks for what is not here."""

import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from rheostat_server.engines.embedded.sampling import Sampling
from rheostat_server.errors import InvalidField, RheostatError, UnsupportedField

METADATA: Final = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user"})
"""Fields that describe the caller and change no answer; any value is taken."""

NEUTRAL: Final[Mapping[str, object]] = {
    "add_generation_prompt": True,
    "best_of": 1,
    "echo": False,
    "include_stop_str_in_output": False,
    "length_penalty": 1.0,
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "skip_special_tokens": True,
    "store": False,
    "tool_choice": "none",
    "use_beam_search": False,
}
"""Fields that this engine lacks, each with the one value that asks for nothing."""

_UNSUPPORTED: Final = "unsupported"
_TOKEN_ID: Final = re.compile("0|[1-9][0-9]{0,9}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _text_of(content: object) -> object:
    """A list of text parts is one text, its parts on lines of their own as in vLLM."""
    if not isinstance(content, list) or not content:
        return content
    return "\n".join(_text_of_part(part) for part in content)


def _text_of_part(part: object) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": str(kind)} if kind != "text":
            raise PydanticCustomError(_UNSUPPORTED, "a part of the type '{kind}'", {"kind": kind})
    raise PydanticCustomError("part", 'a part should be {{"type": "text", "text": "…"}}')


def _as_list(stop: object) -> object:
    return [stop] if isinstance(stop, str) else stop


def _encodable(text: str) -> str:
    """JSON can spell half of a surrogate pair, which is no character and which no tokenizer takes."""
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    raise PydanticCustomError("surrogate", "should be text without lone surrogates")


Text = Annotated[str, AfterValidator(_encodable)]


class ChatMessage(_Part):
    role: Annotated[Text, Field(min_length=1)]
    content: Annotated[Text, BeforeValidator(_text_of)]
    name: Text | None = None


class StreamOptions(_Part):
    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(_Part):
    """The body's fields; every one of them is honoured."""

    model: Text
    messages: list[ChatMessage] = Field(min_length=1)
    n: int = Field(default=1, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None

    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=-1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int = Field(default=0, ge=0)
    ignore_eos: bool = False
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list)] = Field(
        default_factory=list, max_length=16
    )
    stop_token_ids: list[int] = Field(default_factory=list, max_length=64)

    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias={int(token): bias for token, bias in self.logit_bias.items()},
        )


def read_request(
    body: Mapping[str, Any], *, defaults: Mapping[str, Any], vocabulary: int, max_candidates: int
) -> ChatRequest:
    """The checked request; `defaults` stand in for fields that are left out or null.

    Raises:
        UnsupportedField: a field, a value of it, or a content part that this engine has no way to honour.
        InvalidField: a field of a wrong type, out of range, or at odds with another.
    """
    given = {name: value for name, value in body.items() if value is not None and not _asks_nothing(name, value)}
    if isinstance(given.get("messages"), list):
        given["messages"] = [_without_nulls(message) for message in given["messages"]]
    try:
        request = ChatRequest.model_validate({**defaults, **given})
    except ValidationError as exc:
        raise _translated(exc.errors(include_url=False)[0]) from None
    _check_together(request, vocabulary=vocabulary, max_candidates=max_candidates)
    return request


def _asks_nothing(name: str, value: object) -> bool:
    return name in METADATA or (name in NEUTRAL and value == NEUTRAL[name])


def _without_nulls(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return {name: value for name, value in message.items() if value is not None}


def _check_together(request: ChatRequest, *, vocabulary: int, max_candidates: int) -> None:
    if request.n > max_candidates:
        raise _invalid("n", request.n, f"it should be at most {max_candidates}, the number of answers run at once")
    if request.top_logprobs and not request.logprobs:
        raise _invalid("top_logprobs", request.top_logprobs, "it should come with logprobs true")
    if request.stream_options and not request.stream:
        raise _invalid("stream_options", request.stream_options.model_dump(), "it should come with stream true")
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise _invalid("max_tokens", request.max_tokens, "it should equal max_completion_tokens, or be left out")
    for token in request.logit_bias:
        if not (_TOKEN_ID.fullmatch(token) and int(token) < vocabulary):
            raise _invalid("logit_bias", token, f"its keys should be token ids from 0 to {vocabulary - 1}")
    for id in request.stop_token_ids:
        if not 0 <= id < vocabulary:
            raise _invalid("stop_token_ids", id, f"its items should be token ids from 0 to {vocabulary - 1}")


def _invalid(name: str, value: object, right: str) -> InvalidField:
    return InvalidField(f"{name} is {reprlib.repr(value)}; {right}.", param=name)


def _translated(error: ErrorDetails) -> RheostatError:
    path = _path(error["loc"])
    if error["type"] == "extra_forbidden":
        return UnsupportedField(f"{path} is not supported by the embedded engine; leave it out.", param=path)
    if error["type"] == _UNSUPPORTED:
        return UnsupportedField(
            f"{path} holds {error['msg']}, which the embedded engine does not support; send text.", param=path
        )
    if error["type"] == "missing":
        return InvalidField(f"{path} is missing or null; it is required.", param=path)
    return InvalidField(f"{path} is {reprlib.repr(error['input'])}; it {_right(error)}.", param=path)


def _right(error: ErrorDetails) -> str:
    """Pydantic's message without its subject: "should be a valid number"."""
    if error["type"] in ("model_type", "dict_type"):
        return "should be an object"
    return re.sub(r"^[A-Z]\w+ (?=should)| after validation.*", "", error["msg"])


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`, as OpenAI names a field."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
