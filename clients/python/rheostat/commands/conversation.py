"""A conversation on the terminal: lines that begin with a slash turn dials, the others are said to the model."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console

from rheostat.client import Client
from rheostat.commands.options import one_line
from rheostat.commands.spoken import spoken
from rheostat.commands.terminal import dials_in_words
from rheostat.dials import Dials, as_mode
from rheostat.errors import RheostatError

PROMPT: Final = "> "
HELP: Final = "/safety 0.8, /helpfulness .3, /mode adapter, /dials, /reset, /help, /quit; everything else is said"


class Ended(Exception):
    """The user wants to leave."""


@dataclass(slots=True)
class Conversation:
    """`messages` are what was said so far; those that it begins with stay when it begins anew.

    Dials and mode are among the `options` of each request, where they go before a preset.
    """

    client: Client
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    streamed: bool = True
    _beginning: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._beginning = list(self.messages)

    def hold(self) -> None:
        """Until /quit, or the end of the input."""
        with suppress(ImportError):
            import readline  # noqa: F401, gives the prompt a history and keys to edit a line
        _tell(HELP)
        with suppress(Ended, EOFError, KeyboardInterrupt):
            while True:
                self.take(input(PROMPT if sys.stdin.isatty() else "").strip())

    def take(self, line: str) -> None:
        """One line. What is wrong with it is told, and the conversation goes on."""
        try:
            if line.startswith("/"):
                self._obey(line)
            elif line:
                self._say(line)
        except RheostatError as exc:
            _tell(one_line(exc))
        except ValueError as exc:
            _tell(str(exc))

    def _say(self, text: str) -> None:
        """An answer that failed or was broken off by Ctrl-C is not kept, nor what was said for it."""
        asked = [*self.messages, {"role": "user", "content": text}]
        try:
            answer = spoken(self.client, asked, self.options, streamed=self.streamed)
        except KeyboardInterrupt:
            _tell("broken off")
        else:
            self.messages = [*asked, {"role": "assistant", "content": answer.content or ""}]

    def _obey(self, line: str) -> None:
        name, _, value = line[1:].partition(" ")
        if name not in _COMMANDS:
            raise ValueError(f"/{name} is not known; known are: {HELP}")
        _COMMANDS[name](self, value.strip())

    def _set_safety(self, value: str) -> None:
        self._turn(Dials(safety=_level("safety", value)))

    def _set_helpfulness(self, value: str) -> None:
        self._turn(Dials(helpfulness=_level("helpfulness", value)))

    def _set_mode(self, value: str) -> None:
        self.options = {**self.options, "mode": as_mode(value)}
        self._show_dials("")

    def _turn(self, dials: Dials) -> None:
        self.options = {**self.options, "dials": dials.over(Dials.of(self.options.get("dials")))}
        self._show_dials("")

    def _show_dials(self, _: str) -> None:
        _tell(asked_in_words(self.options))

    def _reset(self, _: str) -> None:
        self.messages = list(self._beginning)
        _tell("a new conversation; the dials stay")

    def _help(self, _: str) -> None:
        _tell(HELP)

    def _quit(self, _: str) -> None:
        raise Ended


_COMMANDS: Final[Mapping[str, Callable[[Conversation, str], None]]] = {
    "safety": Conversation._set_safety,
    "helpfulness": Conversation._set_helpfulness,
    "mode": Conversation._set_mode,
    "dials": Conversation._show_dials,
    "reset": Conversation._reset,
    "help": Conversation._help,
    "quit": Conversation._quit,
}


def asked_in_words(options: Mapping[str, Any]) -> str:
    """What a request with these options says of the dials; the server's receipt tells what comes of it."""
    dials, mode, preset = Dials.of(options.get("dials")), options.get("mode"), options.get("preset")
    if not preset:
        return f"{dials_in_words(dials)} · {mode or 'default mode'}"
    own = dials_in_words(dials) if dials.as_dict() else None
    return " · ".join(part for part in (f"preset {preset}", own, mode) if part)


def _level(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise ValueError(f"/{name} {text!r} sets nothing; say a number from 0 to 1, such as /{name} 0.8") from exc


def _tell(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="dim", markup=False, soft_wrap=True)
