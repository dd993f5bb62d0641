"""The fenced blocks of the pages, and what the comments right above a block say of it.

`<!-- not run: REASON -->` excuses a block from being run; `<!-- file: NAME -->` has it written where the page runs its
commands; `<!-- answer -->` says that it is what the request before it is answered with. A page whose blocks have a test
of their own says `<!-- blocks run by: TEST -->` at its top.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.processes import ROOT

PAGES: Final = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
HOST: Final = "http://127.0.0.1:8000"
"""Where the pages say that the demo is served."""

_FENCE: Final = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
_RUN_BY: Final = re.compile(r"^<!-- blocks run by: (.+?) -->$", re.MULTILINE)
_COMMENT: Final = re.compile(r"<!-- (?P<name>not run|file|answer)(?:: (?P<value>.+?))? -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first line of text, `said` what the comments above it say."""

    page: Path
    line: int
    language: str
    text: str
    said: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def is_run(self) -> bool:
        """By the tests of all pages."""
        return "not run" not in self.said and run_by(self.page) is None


def run_by(page: Path) -> str | None:
    """The test of its own that runs a page's blocks, where it has one."""
    found = _RUN_BY.search(page.read_text())
    return found[1] if found else None


def blocks_of(page: Path) -> list[Block]:
    lines = page.read_text().splitlines()
    fences = [number for number, line in enumerate(lines) if _FENCE.match(line)]
    if len(fences) % 2:
        raise ValueError(f"{page.name} has {len(fences)} lines of ```; every block needs two")
    return [_block(page, lines, opens, closes) for opens, closes in zip(fences[::2], fences[1::2], strict=True)]


def every_block(*languages: str) -> list[Block]:
    """Those of all pages in one of these languages, or in any."""
    return [block for page in PAGES for block in blocks_of(page) if not languages or block.language in languages]


def _block(page: Path, lines: Sequence[str], opens: int, closes: int) -> Block:
    fence = _FENCE.match(lines[opens])
    assert fence
    text = "".join(f"{line.removeprefix(fence['indent'])}\n" for line in lines[opens + 1 : closes])
    return Block(page, opens + 2, fence["language"], text, dict(_comments_above(lines, opens)))


def _comments_above(lines: Sequence[str], fence: int) -> Iterator[tuple[str, str]]:
    for line in reversed(lines[:fence]):
        comment = _COMMENT.fullmatch(line.strip())
        if not comment:
            return
        yield comment["name"], comment["value"] or ""
