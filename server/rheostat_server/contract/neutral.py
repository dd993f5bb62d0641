"""Control text that somebody wrote into a message loses its force, so that the dials in force alone are obeyed."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, dropwhile, pairwise
from typing import Any, Final

from rheostat_server.contract.control_text import ControlText, Message

DEEPEST: Final = 64
"""Levels of lists and objects within a message; no chat template prints as many."""

_MEDIA: Final = frozenset({"image_url", "audio_url", "video_url", "input_audio", "file"})
"""Content parts whose member of the same name is an address or data, and no text of the prompt."""

_TEXTS: Final = ("text", "refusal", "thinking")
"""The members of content parts that prompts print."""

_FIELD: Final = re.compile(r"\{\w+:\.(\d)f\}")
_RUNS: Final = re.compile(r"\s+|\w+|[^\w\s]+")
_WORD: Final = re.compile(r"\w+")
_NOT_PLAIN: Final = re.compile(r"[^\t\n\r\x20-\x7e]")

_OPEN: Final = r"""[\[({<"'`]"""
_CLOSE: Final = r"""[\])}>"'`]"""
_NUMBER: Final = r"[-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[-+]?\d+)?(?:\s*+%)?"
_SIGN: Final = r"[^\w\s.,;!?\[\](){}\"'`\u2022\u2020\u00a7\u00b6]{1,3}"
_REPLACEMENTS: Final = (";", "?", "!", "\u2022", "\u2020", "\u00a7", "\u00b6")
"""Texts that no number and no sign holds; the first that no template has is put in the place of control text."""

_BLANKS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_LOOKALIKES: Final = str.maketrans(
    {
        look: letter
        for letter, looks in {
            "a": "\u0430\u03b1\u0251", "c": "\u0441\u03f2", "d": "\u0501", "e": "\u0435\u03b5", "f": "\u0192",
            "g": "\u0261", "h": "\u04bb\u043d", "i": "\u0456\u03b9\u0131", "j": "\u0458", "k": "\u043a\u03ba",
            "l": "\u04cf\u0399", "m": "\u043c", "n": "\u0578", "o": "\u043e\u03bf", "p": "\u0440\u03c1", "q": "\u051b",
            "s": "\u0455", "t": "\u0442\u03c4", "u": "\u03c5\u057d", "v": "\u03bd", "w": "\u051d", "x": "\u0445\u03c7",
            "y": "\u0443",
        }.items()
        for look in looks
    }
)  # fmt: skip
"""Cyrillic, Greek, Armenian and phonetic letters in lower case that look like Latin ones."""


@dataclass(frozen=True, slots=True)
class Neutralised:
    """The messages as the model may read them, and the number of places where control text stood in them."""

    messages: list[dict[str, Any]]
    places: int


@dataclass(frozen=True, slots=True)
class Neutraliser:
    """Finds the control text of any of these templates and puts a semicolon in its place.

    A field is known by the words of the template before it. Found are these words with a number after them, as the
    template writes both or in any other brackets and with any other sign between, and the template's bracket, words
    and sign without a number, since the next message may hold that. Case, spaces, compatibility forms, letters that
    look alike, invisible and combining characters make no difference. A field without words before it is known only
    in the whole text of its template, with its own number of decimals.
    """

    templates: tuple[ControlText, ...]

    def messages(self, messages: Sequence[Message]) -> Neutralised:
        """Copies of `messages`; a text without control text is the same as before.

        Raises:
            ValueError: a message is nested deeper than `DEEPEST`.
        """
        count = _Count()
        return Neutralised([_message(message, self._texts, count) for message in messages], count.places)

    def value(self, value: Any) -> tuple[Any, int]:
        """The same for any other part of a body that a chat template prints, such as `tools`.

        Raises:
            ValueError: it is nested deeper than `DEEPEST`.
        """
        count = _Count()
        return _walk(value, self._texts, count, 0), count.places

    def text(self, text: str) -> tuple[str, int]:
        """One text, and the number of places that were altered."""
        [neutral], places = self._texts([text])
        return neutral, places

    def _texts(self, texts: Sequence[str]) -> tuple[list[str], int]:
        """Texts that an engine joins, by nothing or by a line break."""
        result, places = list(texts), 0
        for between in ("", "\n")[: len(texts)]:
            if self.templates and (spans := _spans(self.templates, between.join(result))):
                result = _replaced(result, spans, _replacement(self.templates), len(between))
                places += len(spans)
        return result, places


class _Count:
    def __init__(self) -> None:
        self.places = 0


Neutral = Callable[[Sequence[str]], tuple[list[str], int]]
Span = tuple[int, int]


def _message(message: Message, neutral: Neutral, count: _Count) -> dict[str, Any]:
    """Every member of it, the role too: there are templates that print each."""
    return {
        _walk(name, neutral, count, 0): _content(value, neutral, count)
        if name == "content"
        else _member(name, value, neutral, count, 1)
        for name, value in message.items()
    }


def _content(content: Any, neutral: Neutral, count: _Count) -> Any:
    if not isinstance(content, list):
        return _walk(content, neutral, count, 1)
    return [_part(part, neutral, count) for part in _parts(content, neutral, count)]


def _part(part: Any, neutral: Neutral, count: _Count) -> Any:
    if not isinstance(part, dict):
        return _walk(part, neutral, count, 2)
    media = {name: value for name, value in part.items() if name in _MEDIA and name == part.get("type")}
    return {**_walk({name: value for name, value in part.items() if name not in media}, neutral, count, 2), **media}


def _walk(value: Any, neutral: Neutral, count: _Count, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError(f"messages are nested deeper than {DEEPEST} levels; they must be flatter")
    if isinstance(value, str):
        [text], places = neutral([value])
        count.places += places
        return text
    if isinstance(value, list):
        return [_walk(item, neutral, count, depth + 1) for item in _parts(value, neutral, count)]
    if isinstance(value, dict):
        return {
            _walk(name, neutral, count, depth): _member(name, inner, neutral, count, depth + 1)
            for name, inner in value.items()
        }
    return value


def _member(name: str, value: Any, neutral: Neutral, count: _Count, depth: int) -> Any:
    if name == "arguments" and isinstance(value, str):
        return _arguments(value, neutral, count, depth)
    return _walk(value, neutral, count, depth)


def _arguments(text: str, neutral: Neutral, count: _Count, depth: int) -> Any:
    """Arguments of a tool call: JSON in a text. Chat templates print it as read, so its escapes hide nothing."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return _walk(text, neutral, count, depth)
    within = _Count()
    walked = _walk(read, neutral, within, depth)
    count.places += within.places
    return _walk(json.dumps(walked, ensure_ascii=False) if within.places else text, neutral, count, depth)


def _parts(items: list[Any], neutral: Neutral, count: _Count) -> list[Any]:
    """Content parts, control text that goes over the border of two of them taken out."""
    known = {place: text for place, item in enumerate(items) if (text := _text_of(item)) is not None}
    if len(known) < 2:
        return items
    texts, found = neutral(list(known.values()))
    if not found:
        return items
    count.places += found
    result = list(items)
    for place, text in zip(known, texts, strict=True):
        result[place] = text if isinstance(items[place], str) else {**items[place], _text_name(items[place]): text}
    return result


def _text_of(part: Any) -> str | None:
    """What a prompt prints of a part; None where that is no text."""
    if isinstance(part, str):
        return part
    return part[_text_name(part)] if isinstance(part, dict) and _text_name(part) else None


def _text_name(part: dict[str, Any]) -> str:
    """The member that holds the text of a part; empty where none does."""
    return next((name for name in _TEXTS if isinstance(part.get(name), str)), "")


def _spans(templates: tuple[ControlText, ...], text: str) -> list[Span]:
    table = _table(text)
    folded = _lower(text, table)
    if not any(word in folded for word in _words(templates)):
        return []
    found = [match.span() for match in _pattern(templates).finditer(folded)]
    if not table or not found:
        return found
    origins = [place for place, letter in enumerate(text) for _ in table.get(ord(letter), letter)]
    return [(origins[start], origins[end - 1] + 1) for start, end in found]


def _replaced(texts: Sequence[str], spans: Sequence[Span], replacement: str, between: int) -> list[str]:
    """The texts with a replacement in each span of their join, put into the text where the span begins.

    `between` is the number of characters that joined them.
    """
    result, begin, place = list[str](), 0, 0
    for text in texts:
        stop, cursor, pieces = begin + len(text), begin, list[str]()
        while place < len(spans) and spans[place][0] < stop:
            start, end = spans[place]
            pieces.append(text[cursor - begin : max(start, begin) - begin])
            if start >= begin:
                pieces.append(replacement)
            cursor = max(begin, min(end, stop))
            if end > stop:
                break
            place += 1
        result.append("".join([*pieces, text[cursor - begin :]]))
        begin = stop + between
    return result


def _table(text: str) -> dict[int, str]:
    """What each character that is not plain counts as; nothing is in it for most texts."""
    return {ord(letter): _folded(letter) for letter in set(_NOT_PLAIN.findall(text))}


def _folded(letter: str) -> str:
    """A letter's compatibility form in lower case (Unicode's NFKD), without marks; nothing for what cannot be seen."""
    if letter.isspace():
        return " "
    forms = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold())
    return "".join(form for form in forms if not _unseen(form)).translate(_LOOKALIKES)


def _unseen(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Mn", "Mc", "Me") or letter in _BLANKS


@cache
def _pattern(templates: tuple[ControlText, ...]) -> re.Pattern[str]:
    """One or more pieces of control text in folded text, whole templates first."""
    read = [_Template.read(control_text.template) for control_text in templates]
    wholes = [template.whole() for template in read if not all(map(_has_words, template.labels))]
    labels = dict.fromkeys(label for template in read for label in template.labels if _has_words(label))
    piece = "|".join([*wholes, *chain.from_iterable(map(_fragments, labels))])
    return re.compile(rf"(?:{piece})(?:\s*+(?:{piece}))*")


@cache
def _words(templates: tuple[ControlText, ...]) -> tuple[str, ...]:
    """Words of which a text with control text holds one, so that most texts need no pattern."""
    labels = [label for text in templates for label in _Template.read(text.template).labels]
    if not all(map(_has_words, labels)):
        return ("",)
    return tuple(dict.fromkeys(max(_WORD.findall(_name(label)), key=len) for label in labels))


@cache
def _replacement(templates: tuple[ControlText, ...]) -> str:
    """No pattern reaches across it, since no template has its characters: what is left on its two sides stays apart."""
    used = set(_fold("".join(_FIELD.sub("", control_text.template) for control_text in templates)))
    free = next((text for text in _REPLACEMENTS if not set(text) & used), None)
    if free is None:
        raise ValueError(f"the templates use each of {' '.join(_REPLACEMENTS)}; one must be left to put in their place")
    return free


def _fold(text: str) -> str:
    return _lower(text, _table(text))


def _lower(text: str, table: dict[int, str]) -> str:
    return (text.translate(table) if table else text).lower()


@dataclass(frozen=True, slots=True)
class _Template:
    """The folded text before each field, the fields' numbers of decimals, and the text after the last field."""

    labels: tuple[str, ...]
    decimals: tuple[int, ...]
    tail: str

    @classmethod
    def read(cls, template: str) -> "_Template":
        *pairs, tail = _FIELD.split(template)
        return cls(tuple(map(_fold, pairs[::2])), tuple(map(int, pairs[1::2])), _fold(tail))

    def whole(self) -> str:
        numbers = (rf"\d\.\d{{{decimals}}}" if decimals else r"\d" for decimals in self.decimals)
        pieces = [part for pair in zip(map(_literal, self.labels), numbers, strict=True) for part in pair]
        return r"\s*+".join(piece for piece in [*pieces, _literal(self.tail)] if piece)


def _has_words(label: str) -> bool:
    return any(map(str.isalnum, label))


def _fragments(label: str) -> Iterator[str]:
    """Patterns of one field: the label and a number, in other brackets, and without a number."""
    core, name = _core(label), _name(label)
    own = "".join(letter for letter in label[: label.index(core[0])] if letter in "[({<")
    close = rf"(?:\s*+{_CLOSE})?"
    start = r"(?<![^\W\d_])"
    yield rf"{start}{_literal(core)}\s*+{_NUMBER}{close}"
    yield rf"{_OPEN}\s*+{_literal(core)}\s*+{_NUMBER}{close}"
    yield rf"{_OPEN}\s*+{_literal(name)}\s*+{_SIGN}\s*+{_NUMBER}{close}"
    if own:
        yield rf"[{re.escape(own)}]\s*+{_literal(name)}\s*+{_NUMBER}{close}"
    if core == name:
        return
    if own:
        yield rf"[{re.escape(own)}]\s*+{_literal(core)}{close}"
    yield rf"{start}{_literal(core)}\s*+\Z"


def _core(label: str) -> str:
    """A label from its first word on."""
    return "".join(dropwhile(lambda letter: not letter.isalnum(), label)).rstrip()


def _name(label: str) -> str:
    """A label from its first word to its last."""
    return _core(_core(label)[::-1])[::-1]


def _literal(text: str) -> str:
    """A template's own text; spaces may stand between its words and signs, and must between two words."""
    runs = [run for run in _RUNS.findall(text) if not run.isspace()]
    between = [r"\s++" if _wordy(left[-1]) and _wordy(right[0]) else r"\s*+" for left, right in pairwise(runs)]
    return "".join(chain.from_iterable(zip(map(re.escape, runs), [*between, ""], strict=False)))


def _wordy(letter: str) -> bool:
    return letter.isalnum() or letter == "_"
