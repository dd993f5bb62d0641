"""Modes compile dials into an engine request; each is a pure function. `auto` is resolved in `plan.py`."""

from typing import Final

KNOWN_MODES: Final = (
    "auto", "off", "prompt", "adapter", "blend", "rerank", "prompt+rerank", "adapter+rerank", "blend+rerank",
)  # fmt: skip
CONTROLLED: Final = tuple(mode for mode in KNOWN_MODES if mode != "off")
"""The modes of an envelope that names none: `off` lets a request past both dials, so it has to be named."""
