"""Labels a whole file of prompts with their groups, into one folder; a labelling that was killed goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rheostat_training.equilibrate.fdc.group import Group, GroupedPrompt, Grouping, Labeller
from rheostat_training.progress import Progress
from rheostat_training.resume import INPUTS_FILE, claim, rows_digest, write_json
from rheostat_training.rows import Prompt, write_rows
from rheostat_training.work_folder import alone_in, refuse_foreign

GROUPED_FILE: Final = "grouped.jsonl"
REPORT_FILE: Final = "report.json"
WORK: Final = "work"
WRITTEN: Final = (GROUPED_FILE, REPORT_FILE, WORK)
"""What a labelling puts into its folder, in place of what is there by these names."""


@dataclass(frozen=True, slots=True)
class KnownGroups:
    """A labeller made of a function of a prompt's text that gives its group, or None where it knows none."""

    group: Callable[[str], Group | None]
    name: str

    def identity(self) -> str:
        return self.name

    def label(self, prompts: Sequence[Prompt], folder: Path, *, progress: Progress) -> Grouping:
        found = {prompt.id: self.group(prompt.text) for prompt in prompts}
        rows = [GroupedPrompt(each.id, each.messages, group) for each in prompts if (group := found[each.id])]
        return Grouping(rows, {id: f"not known to {self.name}" for id, group in found.items() if group is None})


def label_prompts(
    labeller: Labeller,
    prompts: Mapping[str, Prompt],
    out: Path,
    *,
    left_out: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes `out/grouped.jsonl` and returns what is in `out/report.json`; `left_out` are the prompts never asked of.

    Raises:
        AnotherRun: `out` holds the labels of other prompts or of another labeller.
        Busy: another labelling is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that are written here.
    """
    with alone_in(out, what="labelling", option="--out"):
        if not (out / INPUTS_FILE).exists():
            refuse_foreign(out, WRITTEN, what="labelling", option="--out")
        asked = list(prompts.values())
        claim(out, {"stage": "groups", "labeller": labeller.identity(), "prompts": rows_digest(asked)})
        found = labeller.label(asked, out / WORK, progress=progress or Progress.auto())
        write_rows(out / GROUPED_FILE, found.rows)
        report = {
            "labeller": labeller.identity(),
            "prompts": len(asked),
            "counts": found.counts,
            "failed": dict(found.failed),
            "failures": len(found.failed),
            "left_out": dict(left_out or {}),
        }
        write_json(out / REPORT_FILE, report)
        return report
