"""What the OpenAPI document says of bodies that are read without a model: only what is ours is described."""

from typing import Any, Final

from rheostat_server.api.control_block import ControlBlock

_CHAT_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": {"type": "string", "description": "A name from GET /v1/models; `demo:strict` is a preset."},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}},
        },
        "stream": {"type": ["boolean", "null"], "default": False},
        "n": {"type": ["integer", "null"], "minimum": 1},
        "control": {**ControlBlock.model_json_schema(), "description": "What is asked of the dials."},
    },
    "additionalProperties": True,
    "description": "OpenAI's chat completion body; a field that is not named here goes to the engine untouched.",
}
_EXAMPLE: Final[dict[str, Any]] = {
    "model": "demo",
    "messages": [{"role": "user", "content": "How do I repot a fern?"}],
    "control": {"safety": 0.9, "helpfulness": 0.6},
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
                        "messages": _CHAT_SCHEMA["properties"]["messages"],
                        "response": {"type": "string", "description": "The answer to be judged."},
                    },
                    "additionalProperties": False,
                },
                "example": {"messages": _EXAMPLE["messages"], "response": "Take a wider pot."},
            }
        },
    }
}

CHAT_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _CHAT_SCHEMA, "example": _EXAMPLE}},
    },
    "parameters": [
        {"in": "header", "name": name, "required": False, "schema": schema}
        for name, schema in (
            ("X-Control-Safety", {"type": "number", "minimum": 0, "maximum": 1}),
            ("X-Control-Helpfulness", {"type": "number", "minimum": 0, "maximum": 1}),
            ("X-Control-Mode", {"type": "string"}),
        )
    ],
}
