"""Control text: how dial values are written for the model, the same in training and in serving."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rheostat_server.contract.dials import DIAL_NAMES, Dials, Limits

Message = Mapping[str, Any]

DEFAULT_TEMPLATE: Final = "[helpful={helpfulness:.2f}][harmless={safety:.2f}]"
MEDIA: Final = frozenset(
    {
        "image", "image_url", "image_pil", "image_embeds", "input_image", "audio", "audio_url", "audio_embeds",
        "input_audio", "video", "video_url", "file", "input_file",
    }
)  # fmt: skip
"""Types of content parts that hold no text of the prompt."""
_FIELD = re.compile(r"\{([^{}]*)\}")
_ALLOWED_FIELD = re.compile(rf"({'|'.join(DIAL_NAMES)}):\.([0-4])f")


class NoUserMessage(ValueError):
    """Control text is carried by the last user message, and the conversation has none."""


@dataclass(frozen=True, slots=True)
class ControlText:
    """A template with one fixed-width field a dial, placed after the last user message's text.

    The literal form is that of "Towards Safety and Helpfulness Balanced Responses via Controllable LLMs"
    (arXiv 2404.01295); its place, a suffix of the last user message, is our reconstruction: every dial value then
    shares the prompt's KV prefix.

    Raises:
        ValueError: the template has another field than `{safety:.2f}` and `{helpfulness:.2f}` (0 to 4 decimals), or
            lacks one of them.
    """

    template: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        fields = _FIELD.findall(self.template)
        wrong = [field for field in fields if not _ALLOWED_FIELD.fullmatch(field)]
        if wrong or {field.split(":")[0] for field in fields} != set(DIAL_NAMES) or _stray_braces(self.template):
            raise ValueError(
                f"control text template is {self.template!r}; it must hold {{safety:.2f}} and {{helpfulness:.2f}}, "
                "and no other field"
            )

    def writable(self, dials: Dials, within: Limits) -> Dials:
        """The nearest dials that the fields' decimals can write, within an operator's limits where they can."""
        return dials.stepped(
            {name: 10 ** int(digits) for name, digits in _ALLOWED_FIELD.findall(self.template)}, within
        )

    def render(self, dials: Dials) -> str:
        return self.template.format(safety=dials.safety, helpfulness=dials.helpfulness)

    def apply(self, messages: Sequence[Message], dials: Dials) -> list[dict[str, Any]]:
        """A copy of `messages` whose last user message ends in one space and the rendered control text.

        Where other messages follow it, the last one ends so too: a model obeys what it reads last, and nothing that a
        caller writes may stand after the dials in force.

        Raises:
            NoUserMessage: no message has the role "user".
            ValueError: the last message calls tools, which prompts print after its text.
        """
        result = [dict(message) for message in messages]
        carrier = next((message for message in reversed(result) if message.get("role") == "user"), None)
        if carrier is None:
            raise NoUserMessage("messages has no message with role 'user', which must carry the control text")
        if result[-1].get("tool_calls") or result[-1].get("function_call"):
            raise ValueError(
                "the last of messages calls tools; what they answered must follow, or something would stand after the "
                "control text"
            )
        text = self.render(dials)
        carrier["content"] = append_text(carrier.get("content"), text, separator=" ")
        if result[-1] is not carrier:
            result[-1]["content"] = append_text(result[-1].get("content") or "", text, separator=" ")
        return result


def append_text(content: object, text: str, *, separator: str) -> str | list[Any]:
    """OpenAI message content (text, or a list of parts) with `text` at the end of its text.

    In a list it joins the last part that is text, since engines put a line break between parts, which training never
    saw; where another kind of part that a prompt prints comes after that, it is a part of its own at the end.

    Raises:
        ValueError: the content is neither text nor a list of parts.
    """
    if isinstance(content, str):
        return f"{content}{separator}{text}" if content else text
    if isinstance(content, list):
        printed = [place for place, part in enumerate(content) if not is_media(part)]
        last = content[printed[-1]] if printed else None
        if isinstance(last, str) or _is_text(last):
            joined = _joined(last, text, separator)
            return [*content[: printed[-1]], joined, *content[printed[-1] + 1 :]]
        return [*content, {"type": "text", "text": text}]
    raise ValueError(f"message content is of type {type(content).__name__}; it must be text or a list of parts")


def is_media(part: object) -> bool:
    """Whether a part of content is a picture, a sound or a file, of which a prompt prints no text."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return kind in MEDIA if isinstance(kind, str) else kind is None and not MEDIA.isdisjoint(part)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _joined(part: Any, text: str, separator: str) -> Any:
    if isinstance(part, str):
        return append_text(part, text, separator=separator)
    return {**part, "text": append_text(part["text"], text, separator=separator)}


def _stray_braces(template: str) -> bool:
    return bool(set("{}") & set(_FIELD.sub("", template)))
