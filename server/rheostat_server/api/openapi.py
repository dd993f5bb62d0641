"""The OpenAPI document: bodies, which are read without a model, answers, errors and keys."""

from collections.abc import Collection, Iterable
from typing import Any, Final

from fastapi import FastAPI

from rheostat_server.api import openapi_answers as answers
from rheostat_server.api.control_block import DECIMAL, ControlBlock
from rheostat_server.callers.book import Book
from rheostat_server.modes import KNOWN_MODES
from rheostat_server.runtime import runtime_in

Responses = dict[int | str, dict[str, Any]]

_MESSAGES: Final[dict[str, Any]] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "minLength": 1},
            "content": {"type": ["string", "array", "null"]},
        },
    },
}
_CHAT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {
            "type": "string", "minLength": 1, "description": "A name from GET /v1/models; `demo:strict` is a preset.",
        },
        "messages": _MESSAGES,
        "stream": {"type": ["boolean", "null"], "default": False},
        "stream_options": {"type": ["object", "null"]},
        "n": {"type": ["integer", "null"], "minimum": 1},
        "control": {
            "description": "What is asked of the dials.", "anyOf": [ControlBlock.model_json_schema(), {"type": "null"}],
        },
    },
    "additionalProperties": True,
    "description": (
        "OpenAI's chat completion body. A field that is not named here, and what messages and their parts may hold, is "
        "for the engine to take or to refuse with 400 or 422. Fields of `control` that do not go with the mode are "
        "refused with 422."
    ),
}  # fmt: skip
_EXAMPLE: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "How do I repot a fern?"}],
    "control": {"safety": 0.9, "helpfulness": 0.6},
}
_DIAL_HEADER: Final[dict[str, Any]] = {"type": "string", "pattern": f"^({DECIMAL})$", "examples": ["0.75"]}

CHAT_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _CHAT_SCHEMA, "example": _EXAMPLE}},
    },
    "parameters": [
        {"in": "header", "name": name, "required": False, "schema": schema}
        for name, schema in (
            ("X-Control-Safety", _DIAL_HEADER),
            ("X-Control-Helpfulness", _DIAL_HEADER),
            ("X-Control-Mode", {"type": "string", "enum": list(KNOWN_MODES)}),
        )
    ],
}
SCORE_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["messages", "response"],
                    "properties": {
                        "messages": _MESSAGES,
                        "response": {"type": "string", "description": "The answer to be judged."},
                    },
                    "additionalProperties": False,
                },
                "example": {"messages": _EXAMPLE["messages"], "response": "Take a wider pot."},
            }
        },
    }
}
_LEVELS: Final[dict[str, Any]] = {
    "type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0, "maximum": 1},
}  # fmt: skip
_SWEEP_SCHEMA: Final[dict[str, Any]] = {
    **_CHAT_SCHEMA,
    "properties": {
        **{name: schema for name, schema in _CHAT_SCHEMA["properties"].items() if name not in ("n", "stream_options")},
        "sweep": {
            "type": ["object", "null"],
            "properties": {"safety": _LEVELS, "helpfulness": _LEVELS, "scores": {"type": "boolean", "default": True}},
            "additionalProperties": False,
            "description": (
                "Levels of the dials; five of either where it is left out, and one dial alone keeps the other at what "
                "`control` says. `scores` has the answers judged."
            ),
        },
    },
    "description": "A chat body, answered at every setting of the levels. With `stream` the points come as events.",
}
SWEEP_BODY: Final[dict[str, Any]] = {
    **CHAT_BODY,
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": _SWEEP_SCHEMA,
                "example": {
                    "model": "demo",
                    "messages": _EXAMPLE["messages"],
                    "sweep": {"safety": [0, 1], "helpfulness": [0, 1]},
                },
            }
        },
    },
}  # fmt: skip
MODEL_NAME: Final[dict[str, Any]] = {
    "parameters": [{"in": "path", "name": "name", "required": True, "schema": {"type": "string", "minLength": 1}}]
}

_READ: Final = (400, 413, 415, 422)
"""What any body may meet with."""
CHAT: Final[Responses] = {
    200: answers.answer(
        answers.COMPLETION, "The answer with its receipt, or with `stream` its events.", streamed=True, rated=True
    ),
    **answers.refusals((*_READ, 403, 404, 429, 502, 504)),
}
PLAN: Final[Responses] = {
    200: answers.answer(answers.PLAN, "What would be run.", rated=True), **answers.refusals((*_READ, 403, 404, 429))
}  # fmt: skip
SCORE: Final[Responses] = {
    200: answers.answer(answers.SCORES, "Levels of the response.", rated=True), **answers.refusals((*_READ, 429, 501))
}  # fmt: skip
SWEEP: Final[Responses] = {
    200: answers.answer(answers.SWEEP, "The points, or with `stream` each as an event.", streamed=True),
    **answers.refusals((*_READ, 403, 404, 429, 502, 504)),
}
MODELS: Final[Responses] = {200: answers.answer(answers.MODELS, "The names.")}
MODEL: Final[Responses] = {200: answers.answer(answers.MODEL, "The model."), **answers.refusals((404,))}
CONTROL: Final[Responses] = {200: answers.answer(answers.CONTROL, "What the caller may set.")}
RELOAD: Final[Responses] = {
    200: answers.answer(answers.RELOADED, "The new policy is in force."), **answers.refusals((403, 422))
}  # fmt: skip
HEALTH: Final[Responses] = {200: answers.answer(answers.HEALTH, "The process lives.")}
READY: Final[Responses] = {200: answers.answer(answers.READY, "It can answer."), **answers.refusals((503,))}

_KEY: Final = "key"


def describe(app: FastAPI, paths: Collection[str]) -> None:
    """Adds to the app's document what all of our routes under /v1, whose paths these are, have in common."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        told, runtime = plain(), runtime_in(app)
        ours = [operation for path in paths for operation in told["paths"][path].values()]
        book = runtime.shelf.book if runtime and runtime.shelf else None
        _add_common(told, ours, book)
        if runtime:
            _bound_choices(ours, runtime.settings.max_choices)
        return told

    app.openapi = document  # type: ignore[method-assign]


def _add_common(document: dict[str, Any], operations: Iterable[dict[str, Any]], book: Book | None) -> None:
    """Adds it to the document itself, which FastAPI keeps; a second time changes nothing."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = answers.ERROR
    if book is not None:
        components["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
    common = answers.refusals((503,) if book is None else (401, 503))
    for operation in operations:
        operation["responses"] |= {str(status): response for status, response in common.items()}
        if book is not None:
            operation["security"] = [{_KEY: []}] if book.anonymous is None else [{_KEY: []}, {}]


def _bound_choices(operations: Iterable[dict[str, Any]], most: int) -> None:
    for operation in operations:
        content = operation.get("requestBody", {}).get("content", {})
        for media in content.values():
            if "n" in media["schema"]["properties"]:
                media["schema"]["properties"]["n"]["maximum"] = most
