"""A mixture from files into a folder: reads what was labelled, has blends made where they are asked for, writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from rheostat_training.equilibrate.fdc.blend_prompts import Blends, blend_prompts
from rheostat_training.equilibrate.fdc.group import GroupedPrompt
from rheostat_training.equilibrate.fdc.labellers import AskedModel, blender_of, labeller_of
from rheostat_training.equilibrate.fdc.mix import WRITTEN, MixPlan, Mixture, make_mixture, write_mixture
from rheostat_training.equilibrate.fdc.options import BlendBy, By
from rheostat_training.progress import Progress
from rheostat_training.prompts import PromptSource, content_key, read_prompts
from rheostat_training.resume import INPUTS_FILE, claim, plan_facts, rows_digest
from rheostat_training.rows import Prompt, read_rows
from rheostat_training.work_folder import alone_in, refuse_foreign

BLENDS_FOLDER: Final = "blends"


@dataclass(frozen=True, slots=True)
class Blending:
    """What makes blends, and what tells whether they are potent; models are loaded when a blend is wanted."""

    blend_by: BlendBy
    label_by: By
    classifier: Path | None
    asked: AskedModel

    def blends(
        self,
        explicit: Sequence[Prompt],
        implicit: Sequence[Prompt],
        count: int,
        known: Collection[str],
        *,
        out: Path,
        progress: Progress,
    ) -> Blends:
        """See `blend_prompts.blend_prompts`; a model that blends and judges is loaded once."""
        sampler = cache(self.asked.sampler)
        labeller = labeller_of(self.label_by, self.classifier, self.asked, sampler)
        blender = blender_of(self.blend_by, self.asked, sampler)
        return blend_prompts(blender, labeller, explicit, implicit, count, out, known=known, progress=progress)


def mix_files(
    grouped: Sequence[Path],
    general: Sequence[str] | None,
    plan: MixPlan,
    out: Path,
    *,
    blending: Blending | None = None,
    progress: Progress | None = None,
) -> Mixture:
    """Draws a mixture from files that a labelling wrote, and from sources of general prompts where they are given.

    Raises:
        AnotherRun: `out` holds the mixture of other prompts or of another plan.
        BadRow: a file is none that a labelling wrote.
        Busy: another draw is at work in `out`.
        NotOurs: `out` holds files of somebody else's by the names that are written here.
        UnreadablePrompts: a source of general prompts cannot be read.
        ValueError: one id is that of two different prompts.
    """
    with alone_in(out, what="mixture", option="--out"):
        if not (out / INPUTS_FILE).exists():
            refuse_foreign(out, (*WRITTEN, BLENDS_FOLDER), what="mixture", option="--out")
        rows = [row for path in grouped for row in read_rows(path, GroupedPrompt)]
        others = _general(general) if general else None
        claim(
            out,
            {
                "stage": "mixture",
                "plan": plan_facts(plan),
                "grouped": rows_digest(rows),
                "general": rows_digest(others.values()) if others is not None else None,
                "blending": blending and [blending.blend_by, blending.label_by],
            },
        )
        shown = progress or Progress.auto()
        make_blends = partial(blending.blends, out=out / BLENDS_FOLDER, progress=shown) if blending else None
        mixture = make_mixture(rows, others, plan, make_blends)
        write_mixture(mixture, plan, out)
        return mixture


def _general(sources: Sequence[str]) -> dict[str, Prompt]:
    """Prompts of all sources; an id that two of them use for different prompts goes to the first."""
    found: dict[str, Prompt] = {}
    for source in sources:
        for id, prompt in read_prompts(PromptSource(source)).prompts.items():
            key = id if id not in found else f"general-{content_key(prompt.messages)[:16]}"
            found.setdefault(key, prompt)
    return found
