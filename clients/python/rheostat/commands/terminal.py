"""What a terminal shows: a model's text with nothing in it that the terminal would obey, and a receipt in one line."""

from typing import Final

from rheostat.dials import Dials
from rheostat.receipt import Receipt
from rheostat.reply import Scores

_OBEYED: Final = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def plain(text: str) -> str:
    """Without control characters, by which a text could move the cursor, change colours or retitle the window."""
    return text.translate(_OBEYED)


def in_one_line(receipt: Receipt) -> str:
    parts = [
        dials_in_words(receipt.effective) if receipt.effective else "no dial in force",
        receipt.mode,
        f"clamped: {', '.join(receipt.clamped)}" if receipt.clamped else "",
        _chosen(receipt),
        f"judged {scores_in_words(receipt.scores)}" if receipt.scores else "",
        f"{receipt.timing_ms['total']:.0f} ms" if "total" in receipt.timing_ms else "",
    ]
    return " · ".join(part for part in parts if part)


def dials_in_words(dials: Dials) -> str:
    return ", ".join(f"{name} {level:.2f}" for name, level in dials.as_dict().items()) or "the server's defaults"


def scores_in_words(scores: Scores) -> str:
    return f"{level_in_words(scores.safety)} / {level_in_words(scores.helpfulness)}"


def level_in_words(level: float | None) -> str:
    return "–" if level is None else f"{level:.2f}"


def _chosen(receipt: Receipt) -> str:
    return f"best of {receipt.candidates.generated}" if receipt.candidates and receipt.choice else ""
