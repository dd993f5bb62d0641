"""How many prompts of each group a mixture is to have, and how many general ones beside them.

Source of the budget and of the ratios: arXiv 2502.11555.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rheostat_training.equilibrate.fdc.group import Group
from rheostat_training.limits import STRICT, at_least, refuse, where

PAPER_PARTS: Final[Mapping[Group, int]] = {Group.EHD: 10, Group.IHD: 3, Group.MHD: 1}
PAPER_TOTAL: Final = 14_000
GENERAL_A_PROMPT: Final[Mapping[Group, tuple[int, int]]] = {
    Group.EHD: (20, 30),
    Group.IHD: (50, 100),
    Group.MHD: (100, 200),
}
"""How many general prompts there are to be for each prompt of a group, the fewest and the most."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How many prompts of each harmful group a mixture is to have."""

    __pydantic_config__ = STRICT

    ehd: int
    ihd: int
    mhd: int

    def __post_init__(self) -> None:
        refuse(
            at_least(self, 0, "ehd", "ihd", "mhd"),
            where(not self.ehd + self.ihd + self.mhd, "the budget is 0 of every group; one must be above 0"),
        )

    @classmethod
    def paper(cls, total: int = PAPER_TOTAL) -> "Budget":
        """`total` prompts in the paper's 10 : 3 : 1, what is left of the division going to the larger remainders.

        Raises:
            ValueError: the total is below 1.
        """
        if total < 1:
            raise ValueError(f"safety is {total}; it must be at least 1")
        parts = sum(PAPER_PARTS.values())
        counts = {group: total * part // parts for group, part in PAPER_PARTS.items()}
        by_remainder = sorted(PAPER_PARTS, key=lambda group: -(total * PAPER_PARTS[group] % parts))
        for group in by_remainder[: total - sum(counts.values())]:
            counts[group] += 1
        return cls(counts[Group.EHD], counts[Group.IHD], counts[Group.MHD])

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """A budget written as "ehd=10000,ihd=3000,mhd=1000"; a group that is not named gets 0.

        Raises:
            ValueError: it is not of this form.
        """
        found: dict[str, int] = {}
        for part in text.split(","):
            name, _, count = (word.strip() for word in part.partition("="))
            if name.lower() not in ("ehd", "ihd", "mhd") or not count.isdecimal() or name.lower() in found:
                raise ValueError(f"budget is {text!r}; it must be like ehd=10000,ihd=3000,mhd=1000, each group once")
            found[name.lower()] = int(count)
        return cls(found.get("ehd", 0), found.get("ihd", 0), found.get("mhd", 0))

    @property
    def counts(self) -> dict[Group, int]:
        return {Group.EHD: self.ehd, Group.IHD: self.ihd, Group.MHD: self.mhd}


@dataclass(frozen=True, slots=True)
class Ratio:
    """General prompts for each prompt of a group, beside the fewest and the most that the paper has."""

    value: float
    fewest: int
    most: int

    @property
    def is_kept(self) -> bool:
        return self.fewest <= self.value <= self.most


def general_wanted(drawn: Mapping[Group, int]) -> int:
    """The fewest general prompts that every group's ratio allows; where none does, the most that exceed no ratio.

    For the paper's budget the three ratios meet in one number, 200,000.
    """
    of = {group: count for group, count in drawn.items() if count}
    if not of:
        return 0
    fewest = max(GENERAL_A_PROMPT[group][0] * count for group, count in of.items())
    most = min(GENERAL_A_PROMPT[group][1] * count for group, count in of.items())
    return min(fewest, most)
