"""The tables of the equilibrate pages say what the code does."""

import re
from dataclasses import fields
from pathlib import Path

from rheostat_training.equilibrate.pairs import PairPlan, bfpo_aim

DOCS = Path(__file__).parents[2] / "docs"


def rows_under(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first row begins so."""
    table = (DOCS / page).read_text().split(f"| {head} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_settings_of_pairs_are_those_of_the_plan_with_their_defaults() -> None:
    told = {
        re.sub("`", "", name): default.strip("`")
        for name, default, _ in rows_under("equilibrate.md", "setting of `pairs`")
    }
    known = {field.name: field.default for field in fields(PairPlan)}
    assert told.keys() == known.keys()
    for name in told.keys() - {"seed"}:
        assert told[name] == (f"{known[name]:g}" if isinstance(known[name], float) else str(known[name]).lower())


def test_the_aims_of_bfpo_are_those_of_the_code() -> None:
    told = [float(at_half.replace("−", "-")) for _, _, at_half, _ in rows_under("equilibrate-methods.md", "safe are")]
    both = [(True, True), (True, False), (False, True), (False, False)]
    assert told == [bfpo_aim(chosen_safe=chosen, rejected_safe=rejected) for chosen, rejected in both]
