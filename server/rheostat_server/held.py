"""Fields of engines that go around what a request is held to: another name of a limit, or of the model that answers."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from rheostat_server.errors import InvalidField

Kind = Literal["tokens", "choices", "model"]
"""What a field goes around: the tokens of an answer, the choices of a request, the model or adapter or prompt."""

HELD: Final[Mapping[str, tuple[Kind, str]]] = {
    "n_predict": ("tokens", "llama.cpp's name of max_tokens"),
    "num_predict": ("tokens", "Ollama's name of max_tokens"),
    "options": ("tokens", "Ollama's own parameters, num_predict among them"),
    "max_new_tokens": ("tokens", "the name of max_tokens in Transformers and SGLang"),
    "max_output_tokens": ("tokens", "the name of max_tokens in OpenAI's Responses API"),
    "max_length": ("tokens", "bounds prompt and answer together in Transformers"),
    "best_of": ("choices", "draws so many answers, of which n are returned"),
    "beam_width": ("choices", "answers that a beam search follows"),
    "num_beams": ("choices", "the name of beam_width in Transformers"),
    "models": ("model", "OpenRouter's list of models to fall back on"),
    "fallbacks": ("model", "LiteLLM's list of models to fall back on"),
    "transforms": ("model", "OpenRouter's changes to a prompt"),
    "lora": ("model", "llama.cpp's choice of adapters"),
    "lora_path": ("model", "SGLang's choice of an adapter"),
    "lora_request": ("model", "TensorRT-LLM's choice of an adapter"),
    "adapter_id": ("model", "LoRAX' choice of an adapter"),
    "extra_body": ("model", "a gateway may put what it holds in the place of the body's own fields"),
}
"""Each with what it is to those that know it. An upstream of another kind may know more."""

OURS: Final = frozenset(
    {"model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "min_tokens"} | HELD.keys()
)


def check_held(body: Mapping[str, Any], held: Mapping[Kind, str]) -> None:
    """`held` is what the request may not go around, and by what. A number of choices may be as high as `n`.

    Raises:
        InvalidField: a field goes around it; or one is written so that only some servers tell it from ours, such as
            those in Go, which read `Max_Tokens` as `max_tokens`.
    """
    for name, value in body.items():
        known = name.casefold()
        if known != name and known in OURS:
            raise InvalidField(f"{name!r} is given, which some servers read as {known!r}; leave it out", param=name)
        if value is not None and name in HELD:
            _check_one(name, value, held, choices=body.get("n") or 1)


def _check_one(name: str, value: object, held: Mapping[Kind, str], *, choices: int) -> None:
    kind, what = HELD[name]
    if kind in held and not (kind == "choices" and _at_most(value, choices)):
        raise InvalidField(f"{name} is given ({what}), and {held[kind]}; leave it out", param=name)


def _at_most(value: object, most: int) -> bool:
    return isinstance(value, int) and value <= most
