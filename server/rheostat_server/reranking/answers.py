"""What the caller gets of a race: a whole answer, put together as OpenAI's clients do it, or chunks, or a refusal."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rheostat_server.engines import Completion, EngineRequest
from rheostat_server.errors import EngineFailed

Event = Mapping[str, Any]
Usage = Mapping[str, Any]

CONTENT_FILTER: Final = "content_filter"
_SAID_ONCE: Final = frozenset({"role", "id", "type", "finish_reason", "stop_reason"})
_HEAD: Final = ("id", "created", "model", "service_tier", "system_fingerprint")
"""What every chunk of a stream tells of its answer."""
_NOT_HEAD: Final = frozenset({"object", "choices", "usage"})


def completion_of(events: Sequence[Event], usage: Usage | None) -> Completion:
    """OpenAI's `chat.completion` of one choice from its chunks.

    Raises:
        EngineFailed: no event holds a choice.
    """
    choices = [choice for event in events for choice in event.get("choices") or ()]
    if not choices:
        raise EngineFailed("the engine's stream ended without a choice")
    message: dict[str, Any] = {"role": "assistant", "content": None}
    rest: dict[str, Any] = {"logprobs": None, "finish_reason": None}
    for choice in choices:
        _merge(message, choice.get("delta") or {})
        _merge(rest, {name: value for name, value in choice.items() if name not in ("delta", "index")})
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    return _whole(_whole_head(events), {"index": 0, "message": message, **rest}, usage)


def chosen_of(completion: Completion, place: int) -> Completion:
    """A completion of several choices with one of them alone; `usage` stays that of all."""
    return {**completion, "choices": [{**completion["choices"][place], "index": 0}]}


def refusal_of(request: EngineRequest, text: str, usage: Usage | None) -> Completion:
    """The answer where no candidate may be returned."""
    head = {"id": f"chatcmpl-{request.request_id}", "created": int(time.time()), "model": request.body["model"]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": CONTENT_FILTER}
    return _whole(head, choice, usage)


def chunks_of(completion: Completion) -> Iterator[dict[str, Any]]:
    """A whole answer as a stream's chunks: role and text, then why it ended."""
    choice = completion["choices"][0]
    said = {"index": 0, "delta": choice["message"], "logprobs": None, "finish_reason": None}
    ended = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice["finish_reason"]}
    for each in (said, ended):
        yield _chunk(_head(completion), choices=[each])


def as_wanted(event: Event, options: Mapping[str, Any]) -> Event | None:
    """An event as the caller asked for it; we asked the engine for more usage. None where nothing is left of it."""
    if "usage" not in event or (event.get("choices") and options.get("continuous_usage_stats")):
        return event
    return {name: value for name, value in event.items() if name != "usage"} if event.get("choices") else None


def usage_chunk(first: Event, usage: Usage) -> dict[str, Any]:
    """The chunk by which a stream tells its usage."""
    return _chunk(_head(first), choices=[], usage=dict(usage))


def _whole(head: Event, choice: Event, usage: Usage | None) -> Completion:
    known = {"usage": dict(usage)} if usage else {}
    return {**head, "object": "chat.completion", "choices": [choice], **known}


def _chunk(head: Event, **parts: Any) -> dict[str, Any]:
    return {**head, "object": "chat.completion.chunk", **parts}


def _head(event: Event) -> dict[str, Any]:
    return {name: event[name] for name in _HEAD if name in event}


def _whole_head(events: Sequence[Event]) -> dict[str, Any]:
    """What stands beside the choices in any of the events; the first value that is not null."""
    head: dict[str, Any] = {}
    for event in events:
        head |= {name: value for name, value in event.items() if name not in _NOT_HEAD and head.get(name) is None}
    return head


def _merge(whole: dict[str, Any], part: Event) -> None:
    """Adds a delta: texts and lists grow, objects merge, anything else takes the later value; null adds nothing."""
    for name, value in part.items():
        before = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, Mapping):
            whole[name] = before if isinstance(before, dict) else {}
            _merge(whole[name], value)
        elif isinstance(value, list):
            whole[name] = _grown(before if isinstance(before, list) else [], value)
        elif isinstance(before, str) and isinstance(value, str) and name not in _SAID_ONCE:
            whole[name] = before + value
        else:
            whole[name] = value


def _grown(before: list[Any], more: Sequence[Any]) -> list[Any]:
    """Items that bear an `index`, as calls of tools do, merge with the one of that index; others are appended."""
    grown = list(before)
    for item in more:
        same = _same(grown, item)
        if same is not None:
            _merge(same, item)
        elif isinstance(item, Mapping):
            grown.append({})
            _merge(grown[-1], item)
        else:
            grown.append(item)
    return grown


def _same(known: Sequence[Any], item: Any) -> dict[str, Any] | None:
    if not isinstance(item, Mapping) or "index" not in item:
        return None
    return next((each for each in known if isinstance(each, dict) and each.get("index") == item["index"]), None)
