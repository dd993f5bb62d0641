"""Modes compile dials into an engine request; each is a pure function. `auto` is resolved in `plan.py`."""

from typing import Final

KNOWN_MODES: Final = ("auto", "off", "prompt", "adapter", "rerank", "prompt+rerank", "adapter+rerank")
