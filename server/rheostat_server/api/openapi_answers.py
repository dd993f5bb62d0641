"""Answers and errors as JSON Schema, for the OpenAPI document."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.modes import KNOWN_MODES

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
LEVEL: Final[Schema] = {"type": "number", "minimum": 0, "maximum": 1}
FREE: Final[Schema] = {"type": "object"}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def either(schema: Schema) -> Schema:
    """That, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, open: bool = False
) -> Schema:
    """An object; an `open` one may have other members, which are the engine's."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": open,
    }


def by_dial(schema: Schema, *, every: bool = False) -> Schema:
    members = {str(name): schema for name in DIAL_NAMES}
    return record(members) if every else record({}, members)


ERROR: Final = record(
    {"error": record({"message": TEXT, "type": TEXT, "param": either(TEXT), "code": either(TEXT)})},
)
"""OpenAI's error object."""

_MODE: Final[Schema] = {"enum": list(KNOWN_MODES)}
_RAN: Final[Schema] = {"enum": [mode for mode in KNOWN_MODES if mode != "auto"]}
_CLAMPED: Final = list_of({"enum": [*DIAL_NAMES, "candidates", "n", "max_tokens", "max_completion_tokens"]})
_CHECKS: Final = list_of(record({"at": {"type": "number"}, "keep": {"type": "number"}}))
_PLANNED: Final[Mapping[str, Schema]] = {
    "effective": by_dial(LEVEL, every=True),
    "clamped": _CLAMPED,
    "adapter": TEXT,
    "control_text": TEXT,
    "prompt_version": TEXT,
    "neutralised": COUNT,
    "control_values": by_dial(LEVEL, every=True),
    "blend": {"type": "object", "additionalProperties": {"type": "number"}},
    "candidates": record(
        {"wanted": COUNT}, dict.fromkeys(("generated", "finished", "failed", "tokens"), COUNT) | {"why": TEXT}
    ),
    "early_stop": _CHECKS,
    "safety_floor": LEVEL,
    "scorers": list_of(TEXT),
}
_ASKED: Final[Mapping[str, Schema]] = {"requested": by_dial(LEVEL), "mode": _RAN}

RECEIPT: Final = record(
    {**_ASKED, "timing_ms": {"type": "object", "additionalProperties": {"type": "number"}}},
    {**_PLANNED, "scores": by_dial(LEVEL), "choice": FREE},
)
_USAGE: Final = record({}, dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT), open=True)
_MESSAGE: Final = record({}, {"role": TEXT, "content": either(TEXT)}, open=True)
_CHOICE: Final = record({"index": COUNT, "message": _MESSAGE}, {"finish_reason": either(TEXT)}, open=True)
COMPLETION: Final = record(
    {"id": TEXT, "object": {"const": "chat.completion"}, "created": COUNT, "model": TEXT,
     "choices": list_of(_CHOICE), "control": RECEIPT},
    {"usage": either(_USAGE)},
    open=True,
)  # fmt: skip
"""OpenAI's, with the receipt."""
EVENT: Final = record(
    {
        "data": {
            **TEXT,
            "description": "A chat.completion.chunk; the last but one bears the receipt, the last is [DONE].",
        }
    },
    open=True,
)
"""Each event of a stream."""
PLAN: Final = record({**_ASKED, "engine": TEXT, "engine_request": FREE}, _PLANNED)
SCORES: Final = record(
    {
        "scores": by_dial(either(LEVEL), every=True),
        "scorers": list_of(
            record({"name": TEXT, "kind": TEXT, "digest": TEXT, "dials": list_of({"enum": list(DIAL_NAMES)})})
        ),
    },
    {"left_out": list_of(TEXT)},
)
_POINT: Final = record(
    {"index": COUNT},
    {
        **by_dial(LEVEL)["properties"], "content": TEXT, "finish_reason": TEXT, "usage": _USAGE, "control": RECEIPT,
        "scores": by_dial(either(LEVEL), every=True), **ERROR["properties"],
    },
)  # fmt: skip
SWEEP: Final = record(
    {"object": {"const": "control.sweep"}, "model": TEXT, "points": list_of(_POINT), "usage": _USAGE},
)
MODEL: Final = record({"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT})
MODELS: Final = record({"object": {"const": "list"}, "data": list_of(MODEL)})
_DIAL: Final = record({"min": LEVEL, "max": LEVEL, "default": LEVEL}, {"locked": {"const": True}})
_ADAPTER: Final = record(
    {"id": TEXT, "name": TEXT, "base_model": TEXT, "levels": by_dial(list_of(LEVEL), every=True),
     "attainable": by_dial(list_of(LEVEL)), "calibrated": FREE}
)  # fmt: skip
_BLEND: Final = record(
    {"id": TEXT, "name": TEXT, "base_model": TEXT, "components": list_of(TEXT),
     "dials": list_of({"enum": list(DIAL_NAMES)}), "levels": list_of(LEVEL)}
)  # fmt: skip
_RERANKING: Final = record(
    {"scorers": list_of(TEXT), "candidates": record({"default": COUNT, "max": COUNT}),
     "choose_after": {"anyOf": [COUNT, {"const": "end"}]}, "early_stop": _CHECKS, "safety_floor": LEVEL}
)  # fmt: skip
CONTROL: Final = record(
    {
        "dials": by_dial(_DIAL, every=True),
        "outside": {"enum": ["clamp", "reject"]},
        "modes": list_of(_MODE),
        "default_mode": _MODE,
        "presets": {
            "type": "object",
            "additionalProperties": record({}, {**dict.fromkeys(DIAL_NAMES, LEVEL), "mode": _MODE}),
        },
        "adapters": list_of(_ADAPTER),
        "prompt_version": TEXT,
    },
    {"blends": list_of(_BLEND), "reranking": _RERANKING},
)
RELOADED: Final = record({"keys": COUNT, "envelopes": list_of(TEXT), "digest": TEXT})
HEALTH: Final = record({"status": {"const": "alive"}})
READY: Final = record({"status": {"const": "ready"}, "engine": TEXT, "models": list_of(TEXT)})

REFUSALS: Final[Mapping[int, str]] = {
    400: "The body cannot be read, or asks for what the engine does not have.",
    401: "No key, or one that is not known; only where the server has a policy file.",
    403: "Beyond what the caller may have.",
    404: "No such model, preset or adapter.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "A field or header has a wrong value, or does not go with another.",
    429: "Over the caller's rates; `Retry-After` says when some come free.",
    501: "The server has no scorers.",
    502: "The engine answered with something that is no answer.",
    503: "The server, its engine or its scorers cannot answer now.",
    504: "The answer took longer than the operator lets it.",
}

_REQUEST_ID: Final[Schema] = {
    "X-Request-ID": {"required": True, "schema": TEXT, "description": "The request's own, or one that was made for it."}
}
_RETRY_AFTER: Final[Schema] = {"Retry-After": {"schema": TEXT, "description": "Seconds until it may be tried again."}}
_RATES: Final[Schema] = {
    f"X-RateLimit-{part}-{what}": {"schema": {"type": "string", "pattern": pattern}}
    for what in ("Requests", "Tokens", "Candidates")
    for part, pattern in (("Limit", "^[0-9]+$"), ("Remaining", "^[0-9]+$"), ("Reset", "^[0-9]+s$"))
}  # fmt: skip


def answer(schema: Schema, description: str, *, streamed: bool = False, rated: bool = False) -> dict[str, Any]:
    """A response of 200; `rated` ones tell what is left of the caller's rates."""
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if streamed:
        content["text/event-stream"] = {"schema": EVENT}
    return {"description": description, "content": content, "headers": {**_REQUEST_ID, **(_RATES if rated else {})}}


def refusals(statuses: Iterable[int]) -> dict[int | str, dict[str, Any]]:
    """Responses of these statuses, all in OpenAI's shape."""
    return {
        status: {
            "description": REFUSALS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            "headers": {
                **_REQUEST_ID,
                **(_RETRY_AFTER if status in (429, 503) else {}),
                **(_RATES if status == 429 else {}),
            },
        }
        for status in statuses
    }
