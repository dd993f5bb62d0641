"""What schemathesis is told to keep out of generated bodies: what the document leaves to the engine to refuse.

Nothing that the document describes is changed, unless it is right: so what is wrong stays wrong. Answers are short.
A whole number written with a point is one to JSON Schema and none to the server, so it is written without.
"""

from typing import Any, Final

import schemathesis
from schemathesis import Case, HookContext

from rheostat_server.modes import KNOWN_MODES

SWEEP: Final = "/v1/control/sweep"
CHAT: Final = ("/v1/chat/completions", "/v1/control/plan", SWEEP)
LONGEST: Final = 40
NAMED: Final = ("model", "messages", "stream", "stream_options", "n", "control", "sweep")
MODE_HEADER: Final = "X-Control-Mode"
RERANKED_ALONE: Final = ("candidates", "choose_after", "early_stop")


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    path = context.operation.path if context.operation else ""
    if not isinstance(body, dict) or not (path in CHAT or path == "/v1/control/score"):
        return body
    kept = {**body, "messages": messages(body["messages"])} if isinstance(body.get("messages"), list) else dict(body)
    if path not in CHAT:
        return kept
    return chat(swept(kept) if path == SWEEP else without(kept, "sweep"))


def without(members: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


def swept(body: dict[str, Any]) -> dict[str, Any]:
    """Few points, and nothing that is for one answer alone."""
    kept = without(body, "n", "stream_options")
    if isinstance(kept.get("control"), dict):
        kept["control"] = without(kept["control"], "choose_after")
    if isinstance(kept.get("sweep"), dict):
        levels = {name: kept["sweep"].get(name) for name in ("safety", "helpfulness")}
        kept["sweep"] |= {name: value[:3] for name, value in levels.items() if isinstance(value, list)}
    return kept


def chat(body: dict[str, Any]) -> dict[str, Any]:
    kept = whole(without(body, *(body.keys() - set(NAMED))))
    if isinstance(kept.get("model"), str) and kept["model"] and len(kept["model"]) % 3:
        kept["model"] = "tiny"
    if isinstance(kept.get("stream_options"), dict):
        kept["stream_options"] = {"include_usage": True}
        kept = streamed(kept)
    if isinstance(kept.get("control"), dict):
        kept = coherent(kept)
    return {**kept, "max_tokens": 2}


def whole(members: dict[str, Any]) -> dict[str, Any]:
    """The numbers of an object that count something, without a point."""
    counts = [name for name in ("n", *RERANKED_ALONE) if isinstance(members.get(name), float)]
    return {**members, **{name: int(members[name]) for name in counts if members[name].is_integer()}}


def streamed(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "stream": True} if body.get("stream") in (None, False, True) else body


def coherent(body: dict[str, Any]) -> dict[str, Any]:
    """Control whose fields go with its mode."""
    control = whole(body["control"])
    reranks = any(control.get(name) is not None for name in RERANKED_ALONE)
    if "mode" not in control or control["mode"] in (None, "auto", "off", "prompt", "rerank", "prompt+rerank"):
        if reranks:
            control["mode"] = "rerank" if control.get("adapter") is None else "adapter+rerank"
        elif control.get("adapter") is not None:
            control["mode"] = "adapter"
    elif control["mode"] in ("adapter", "blend") and reranks:
        control["mode"] += "+rerank"
    body = {**body, "control": control}
    if control.get("choose_after") is not None:
        body = streamed(body)
    if "rerank" in str(control.get("mode")) and is_choices(body.get("n")):
        body["n"] = 1
    return body


def is_choices(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 16


def messages(given: list[Any]) -> list[Any]:
    """Short ones, the first of which is the user's; few of them, if they are all right."""
    kept = [message(one) for one in given]
    if not all(is_right(one) for one in kept):
        return kept
    return [{**one, "role": "user"} if place == 0 else one for place, one in enumerate(kept[:3])]


def is_right(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and bool(message["role"])


def message(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    kept = {name: value for name, value in given.items() if name in ("role", "content")}
    if isinstance(kept.get("role"), str):
        kept["role"] = kept["role"][:LONGEST]
    content = kept.setdefault("content", "x")
    if isinstance(content, str):
        kept["content"] = content[:LONGEST]
    elif content is None or isinstance(content, list):
        kept["content"] = [{"type": "text", "text": "part"}]
    return kept


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """A known mode in a header goes with the body's fields too; where it does not, it is left out."""
    if not isinstance(case.body, dict) or case.headers.get(MODE_HEADER) not in KNOWN_MODES:
        return
    control = case.body.get("control")
    asked = control if isinstance(control, dict) else {}
    named = [name for name in ("adapter", *RERANKED_ALONE) if asked.get(name) is not None]
    if asked.get("mode") is None and (named or case.body.get("n") not in (None, 1)):
        del case.headers[MODE_HEADER]
