"""How well judges tell over-refusal on real prompts: the share of XSTest's safe prompts that each model refused.

    python -m benchmarks.over_refusal --data FOLDER --encoder FOLDER_OR_NAME [--markdown FILE]

People's labels (XSTest, arXiv 2308.01263) beside a refusal scorer that saw neither the model nor the prompt, and beside
known phrases. FOLDER holds xstest_completions.jsonl.gz and xstest_prompts.jsonl.gz.
"""

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.overhead_report import with_section
from benchmarks.scorer_agreement import MEAN, REFUSALS, Bench, refused_unseen
from rheostat_training.progress import Progress
from rheostat_training.scorers.hold_out import Share, hold_outs, shares
from rheostat_training.scorers.stages import RefusalStage
from rheostat_training.scorers.string_matching import FULL_COMPLIANCE, FULL_REFUSAL, matched
from rheostat_training.scorers.train import TextScorerPlan

PROMPTS: Final = "xstest_prompts.jsonl.gz"
REFUSED_FROM: Final = 0.5
"""Of a scorer's level, as the runs of `rheostat train equilibrate` count refusals."""
OPENING: Final = """## Over-refusal on XSTest, by people and by judges

`python -m benchmarks.over_refusal --data FOLDER --encoder FOLDER_OR_NAME`: the share of XSTest's safe prompts, which
look unsafe, that three models refused, in full or in part, and of its unsafe ones. The refusal scorer judges answers of
a model and to prompts that its fit never saw. 95 % intervals from resampling prompts."""
HEAD: Final = "| prompts | model | answers | people | refusal scorer | known phrases |"
RULE: Final = "| --- | --- | ---: | --- | --- | --- |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of label files")
    parser.add_argument("--encoder", required=True, help="the sentence encoder, a folder or a name on the Hub")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    section = "\n".join([OPENING, "", HEAD, RULE, *_lines(given)])
    print(section)
    if given.markdown:
        given.markdown.write_text(with_section(given.markdown.read_text(), section, "over-refusal"))


def _lines(given: argparse.Namespace) -> Iterator[str]:
    stage = RefusalStage.read([given.data / REFUSALS])
    plan = TextScorerPlan("refusal", hold_outs("model,prompt"), seed=given.seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench.of(stage, plan, given, Path(folder))
        at, models, levels = refused_unseen(bench, Progress.auto())
    rows = [stage.rows[place] for place in at]
    safe = _safe_prompts(given.data / PROMPTS)
    phrases = matched([row.answer for row in rows])
    readings = (
        np.array([row.label != FULL_COMPLIANCE for row in rows], dtype=np.float64),
        (levels >= REFUSED_FROM).astype(np.float64),
        np.array([label == FULL_REFUSAL for label in phrases], dtype=np.float64),
    )
    for name, wanted in (("safe", True), ("unsafe", False)):
        kept = np.array([(row.prompt in safe) is wanted for row in rows])
        prompts = [row.prompt for row, keep in zip(rows, kept, strict=True) if keep]
        of = [model for model, keep in zip(models, kept, strict=True) if keep]
        found = [shares(reading[kept], prompts, of, seed=given.seed) for reading in readings]
        for model in [*sorted(set(of)), MEAN]:
            figures = " | ".join(_told(each[model]) for each in found)
            yield f"| {name} | {model} | {found[0][model].rows} | {figures} |"


def _safe_prompts(path: Path) -> set[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["prompt"] for row in rows if row["label"] == "safe"}


def _told(found: Share) -> str:
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


if __name__ == "__main__":
    main()
