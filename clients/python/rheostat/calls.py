"""Every request that the client sends, and how its answer is read; nothing here touches the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar, Union

import httpx

from rheostat.answers import Answer, Judgement, Plan, Sweep
from rheostat.dials import CONTROL_FIELDS, Control, Dials, DialsLike, Mode
from rheostat.envelope import Envelope
from rheostat.errors import SHOWN, APIError, UnreadableAnswer, api_error
from rheostat.reply import Reply
from rheostat.retries import seconds_to_wait

T = TypeVar("T")
Messages = Union[str, Sequence[Mapping[str, Any]]]  # noqa: UP007, as the types beside it
Levels = Sequence[float]
Grid = Mapping[str, Levels | bool]
REQUEST_ID: Final = "X-Request-ID"


class Options(TypedDict, total=False):
    """What may be said beside a conversation's messages; None is the same as left out.

    `model` is the first one of the server where it is left out. A dial that is not named takes the client's own, then
    the server's default for the caller. A `preset` goes in the place of the client's own dials and mode. A field of
    the body that is not among these goes to the engine as it is: by its name, or for type checkers in `extra_body`.
    """

    model: str | None
    dials: DialsLike | None
    mode: Mode | None
    adapter: str | None
    preset: str | None
    candidates: int | None
    choose_after: int | Literal["end"] | None
    early_stop: bool | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    n: int | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    response_format: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


_OURS: Final = {"dials", *CONTROL_FIELDS, "extra_body"}
_SET_BY_METHODS: Final = {
    "stream": "stream() and sweep_stream() stream",
    "control": "its fields are arguments of their own: dials, mode, adapter, preset, candidates, …",
    "sweep": "sweep() and sweep_stream() take levels by the dials' names",
}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and `parse`, which makes the answer's value of its JSON; `takes_model`: its body names a model."""

    method: str
    path: str
    parse: Callable[[Reply], T]
    body: Mapping[str, Any] | None = None
    takes_model: bool = False

    @property
    def lacks_model(self) -> bool:
        return self.takes_model and "model" not in (self.body or {})

    def with_field(self, name: str, value: object) -> "Call[T]":
        return replace(self, body={**(self.body or {}), name: value})


MODELS: Final[Call[list[str]]] = Call("GET", "/v1/models", lambda reply: [each["id"] for each in reply.data["data"]])
ENVELOPE: Final[Call[Envelope]] = Call("GET", "/v1/control", Envelope.of)


def chat(messages: Messages, options: Mapping[str, Any], defaults: Control) -> Call[Answer]:
    return Call("POST", "/v1/chat/completions", Answer.of, chat_body(messages, options, defaults), takes_model=True)


def stream(messages: Messages, options: Mapping[str, Any], defaults: Control) -> Call[Answer]:
    """The tokens are counted unless the caller's own `stream_options` say otherwise."""
    call = chat(messages, options, defaults).with_field("stream", True)
    asked = "stream_options" in (call.body or {})
    return call if asked else call.with_field("stream_options", {"include_usage": True})


def plan(messages: Messages, options: Mapping[str, Any], defaults: Control) -> Call[Plan]:
    return Call("POST", "/v1/control/plan", Plan.of, chat_body(messages, options, defaults), takes_model=True)


def sweep(messages: Messages, grid: Grid, options: Mapping[str, Any], defaults: Control) -> Call[Sweep]:
    body = chat_body(messages, options, defaults)
    return Call("POST", "/v1/control/sweep", Sweep.of, {**body, "sweep": grid}, takes_model=True)


def score(messages: Messages, response: str) -> Call[Judgement]:
    body = {"messages": conversation(messages), "response": response}
    return Call("POST", "/v1/control/score", Judgement.of, body)


def grid(safety: Levels | None, helpfulness: Levels | None, *, scores: bool) -> Grid:
    """The `sweep` block. Raises ValueError for a level that is none, and for a dial without any."""
    levels = {"safety": safety, "helpfulness": helpfulness}
    named = {name: list(each) for name, each in levels.items() if each is not None}
    for name, each in named.items():
        if not each:
            raise ValueError(f"{name} has no levels; leave it out, or name one at least")
        for level in each:
            Dials.of({name: level})
    return {**named, "scores": scores}


def chat_body(messages: Messages, options: Mapping[str, Any], defaults: Control) -> dict[str, Any]:
    """Raises TypeError and ValueError for what must not be sent."""
    if others := [name for name in _SET_BY_METHODS if name in options or name in (options.get("extra_body") or ())]:
        raise TypeError(f"{others[0]} is not an option: {_SET_BY_METHODS[others[0]]}")
    given = {name: value for name, value in options.items() if value is not None}
    control = _control(given, defaults).as_json()
    fields = {name: value for name, value in given.items() if name not in _OURS}
    body = {**given.get("extra_body", {}), **fields, "messages": conversation(messages)}
    return {**body, "control": control} if control else body


def conversation(messages: Messages) -> list[Mapping[str, Any]]:
    """A text alone is what the user says."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return list(messages)


def read(call: Call[T], response: httpx.Response) -> T:
    """The call's value.

    Raises:
        UnreadableAnswer: the body is not what this route of a Rheostat server answers, perhaps as it is another server.
    """
    try:
        return call.parse(Reply(response.json(), request_id(response)))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        told = f"{call.path} answered {response.text[:SHOWN]!r}, which a Rheostat server does not"
        raise UnreadableAnswer(told, status=response.status_code, request_id=request_id(response)) from exc


def refusal(response: httpx.Response) -> APIError:
    """The error of a response that is no success; its body has been read."""
    try:
        body = response.json()
    except ValueError:
        body = response.text
    return api_error(
        body,
        status=response.status_code,
        request_id=request_id(response),
        retry_after=seconds_to_wait(response.headers.get("Retry-After")),
    )


def request_id(response: httpx.Response) -> str | None:
    found: str | None = response.headers.get(REQUEST_ID)
    return found


def _control(given: Mapping[str, Any], defaults: Control) -> Control:
    base = Control() if "preset" in given else defaults
    named = {name: given[name] for name in CONTROL_FIELDS if name in given}
    return replace(base, dials=Dials.of(given.get("dials")).over(base.dials), **named)
