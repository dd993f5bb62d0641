"""How much better reranking looks by the scorer that chooses than it is, and what narrows that gap.

    python -m benchmarks.rerank_gap [--prompts N] [--samples FILE] [--markdown FILE]

The demo's base model answers held-out prompts without control; the server's own functions choose among its answers by
good scorers, noisy ones, means of several, and shrunk ones. What is chosen is judged by the scorer that chose, by
the held-out judges and by the oracle. Answers are kept in --samples and taken from there the next time.
"""

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
from transformers import AutoTokenizer

from benchmarks.gap_scorers import Known, Noisy, Offer, Selecting, known_of, recorded, told
from benchmarks.overhead_report import machine, with_section
from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.demo import base_folder, bundle_folder, scorers_file
from rheostat_server.reranking.selection import Target, choose
from rheostat_server.scorers import UNJUDGED, Scorer, Scores
from rheostat_server.scorers.build import load_scorers, read_scorers
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_training.bootstrap import Bootstrap, Figure
from rheostat_training.demo.asking import held_out
from rheostat_training.demo.judging import judges_of
from rheostat_training.demo.labelled import rows_of_both
from rheostat_training.demo.recipe import TrialPlan
from rheostat_training.evaluate import Evaluation, Trial, evaluate, grid
from rheostat_training.models import load_base
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Request, Sample, read_rows, write_rows
from rheostat_training.samplers.local import sample
from rheostat_training.scorer_fit import ScorerPlan, ScorerShape, fit_scorer

MOST: Final = 16
NUMBERS: Final = (8, 16)
SIGMAS: Final = (0.1, 0.2, 0.3)
TOGETHER: Final = (2, 3, 4)
WEAK_SEEDS: Final = (1, 2, 3)
WEAK_ROWS: Final = 1000
WEAK: Final = ScorerPlan(ScorerShape("bert", hidden=96, layers=2), epochs=3, batch_rows=32, learning_rate=1.5e-3)
RESAMPLES: Final = 1000
ITSELF, HELD_OUT, TRUTH = "itself", "judges", "oracle"
HEAD: Final = (
    "| chooses | by itself: MP, BT, Err | by the judges | by the oracle | gap, safety | gap, helpfulness |\n"
    "|---|---|---|---|---|---|"
)
Trials = Mapping[str, Sequence[Trial]]
"""By who judges."""


def main() -> None:
    given = _arguments()
    offers = offers_of(held_out(given.prompts), given.samples)
    with tempfile.TemporaryDirectory() as folder:
        section = asyncio.run(measured(offers, weak_folders(Path(folder))))
    print(section)
    if given.markdown:
        text = given.markdown.read_text() if given.markdown.exists() else "# Benchmarks\n"
        given.markdown.write_text(with_section(text, section, "rerank-gap"))


def offers_of(prompts: Mapping[str, Prompt], kept: Path | None) -> list[Offer]:
    """Every prompt with the base model's answers, from the file if there is one."""
    samples = list(read_rows(kept, Sample)) if kept and kept.exists() else drawn(prompts)
    if kept and not kept.exists():
        write_rows(kept, samples)
    found = Counter(row.prompt_id for row in samples)
    if short := [id for id in prompts if found[id] != MOST]:
        raise SystemExit(f"{kept} has {found[short[0]]} answers to {short[0]}; {MOST} are needed")
    return [
        Offer(prompt, tuple(row.answer for row in samples if row.prompt_id == prompt.id)) for prompt in prompts.values()
    ]


def drawn(prompts: Mapping[str, Prompt]) -> list[Sample]:
    """The base model's own answers, without control."""
    plan = replace(TrialPlan().sampling, samples=MOST)
    return sample(load_base(base_folder()), [Request(each.id, each.messages) for each in prompts.values()], plan)


def weak_folders(out: Path) -> list[Path]:
    """Scorers of both dials that saw few rows, each its own."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    for seed in WEAK_SEEDS:
        rows = rows_of_both(WEAK_ROWS, purpose="weak", seed=seed)
        plan = replace(WEAK, seed=seed)
        fit_scorer(rows, tokenizer, plan, out / str(seed), heads=DIAL_NAMES, progress=Progress.silent())
    return [out / str(seed) / "model" for seed in WEAK_SEEDS]


async def measured(offers: Sequence[Offer], weak: Sequence[Path]) -> str:
    """The section: a table for each number of candidates."""
    judges = {name: recorded(judge, offers) for name, judge in judges_of(bundle_folder()).items()}
    selector = [scorer for scorer, _ in load_scorers(read_scorers(scorers_file()).scorers)]
    pair, unsure = load_pair(bundle_folder() / "scorers"), [load_heads(folder) for folder in weak]
    ways = ways_to_choose(await known_of(selector, offers), selector, pair, unsure)
    tables = {number: [f"N = {number}", "", HEAD] for number in NUMBERS}
    for by in ways:
        scores = await told(by, offers, judges[HELD_OUT])
        for number, lines in tables.items():
            lines.append(line(by.name, chosen(offers, scores, number, judges)))
    for scorer in (*selector, *pair, *unsure):
        await scorer.close()
    return "\n\n".join([_opening(offers, judges[TRUTH]), *("\n".join(lines) for lines in tables.values())])


def ways_to_choose(
    known: Known, selector: Sequence[Scorer], pair: Sequence[Scorer], weak: Sequence[Scorer]
) -> list[Selecting]:
    """Good scorers, noisy ones, several of these, and their means shrunk."""
    ways = [Selecting("the demo's selector", selector), Selecting("the demo's pair of scorers", pair)]
    for sigma in SIGMAS:
        noisy = [Noisy(known, sigma, seed) for seed in range(max(TOGETHER))]
        name = f"selector, noise {sigma}"
        ways += [Selecting(name, noisy[:1]), Selecting(f"{name}, shrunk", noisy[:1], shrunk=True)]
        ways += [Selecting(f"{name}, mean of {count}", noisy[:count]) for count in TOGETHER]
        ways += [Selecting(f"{name}, mean of {len(noisy)}, shrunk", noisy, shrunk=True)]
    several = f"weak scorer, mean of {len(weak)}"
    return [
        *ways,
        Selecting("weak scorer", weak[:1]),
        Selecting("weak scorer, shrunk", weak[:1], shrunk=True),
        Selecting(several, weak),
        Selecting(f"{several}, shrunk", weak, shrunk=True),
    ]


def chosen(
    offers: Sequence[Offer], scores: Sequence[Sequence[Scores]], number: int, judges: Mapping[str, Known]
) -> Trials:
    """What is chosen of each offer's first candidates at every setting of the dials, as trials by who judges it.

    An answer that the oracle cannot judge, since it is malformed, counts for nobody: all figures are of the same ones.
    """
    result: dict[str, list[Trial]] = {name: [] for name in (ITSELF, HELD_OUT, TRUTH)}
    for offer, told_of in zip(offers, scores, strict=True):
        for dials in grid():
            place = choose(told_of[:number], Target(dials)).place
            assert place is not None, "there is no floor"
            name = offer.prompt.text, offer.answers[place]
            seen = {ITSELF: told_of[place], HELD_OUT: judges[HELD_OUT][name], TRUTH: judges[TRUTH][name]}
            for who, found in seen.items():
                known = found if seen[TRUTH].safety is not None else UNJUDGED
                result[who].append(Trial(offer.prompt.id, dials, known.safety, known.helpfulness))
    return result


def gap(trials: Trials, dial: DialName, *, resamples: int = RESAMPLES) -> Figure:
    """Err by the oracle less Err by the scorer that chose, of the same answers; intervals resample prompts."""
    pairs = [(own, true) for own, true in zip(trials[ITSELF], trials[TRUTH], strict=True) if own.judged and true.judged]
    ids = {name: place for place, name in enumerate(dict.fromkeys(true.prompt_id for _, true in pairs))}
    settings = Counter(true.requested for _, true in pairs)
    return Bootstrap.over(len(ids), resamples=resamples, seed=0).share(
        np.array([_error(true, dial) - _error(own, dial) for own, true in pairs]),
        np.array([ids[true.prompt_id] for _, true in pairs]),
        weights=np.array([1 / settings[true.requested] for _, true in pairs]),
    )


def line(name: str, trials: Trials) -> str:
    """A row of the table: figures are means of both dials."""
    cells = [_three(evaluate(trials[who], resamples=1)) for who in (ITSELF, HELD_OUT, TRUTH)]
    return f"| {' | '.join([name, *cells, *(str(gap(trials, dial)) for dial in ('safety', 'helpfulness'))])} |"


def load_heads(folder: Path) -> Scorer:
    """A model of both dials."""
    heads = {dial: {"label": dial} for dial in DIAL_NAMES}
    spec = {"kind": "classifier", "name": f"weak {folder.parent.name}", "model": str(folder), "heads": heads}
    [(scorer, _)] = load_scorers([ClassifierSpec.model_validate({**spec, "scale": "sigmoid"})])
    return scorer


def load_pair(folder: Path) -> list[Scorer]:
    """A model for each dial."""
    specs = [{"kind": "classifier", "model": str(folder / dial), "dial": dial} for dial in DIAL_NAMES]
    return [scorer for scorer, _ in load_scorers([ClassifierSpec.model_validate(spec) for spec in specs])]


def _error(trial: Trial, dial: DialName) -> float:
    level = trial.level(dial)
    assert level is not None, "trials that were not judged are left out"
    return abs(trial.requested.as_dict()[dial] - level)


def _three(found: Evaluation) -> str:
    dials = (found.safety, found.helpfulness)
    return ", ".join(f"{fmean(dial.figures()[name].value for dial in dials):.3f}" for name in ("MP", "BT", "Err"))


def _opening(offers: Sequence[Offer], truth: Known) -> str:
    formed = fmean(truth[offer.prompt.text, answer].safety is not None for offer in offers for answer in offer.answers)
    return (
        "## Reranking: under its own scorer and under others\n\n"
        f"{len(offers)} held-out prompts x {MOST} answers of the demo's base model without control, temperature "
        f"{TrialPlan().sampling.temperature}, {formed:.3f} of them well formed; 9 settings of the dials; {machine()}. "
        "Figures are means of both dials, over chosen answers that the oracle can judge; the gap is Err by the oracle "
        "less Err by the scorer that chose, with its 95 % interval over prompts. Noise is Gaussian, its deviation "
        "told, on levels that are then cut to [0, 1]; several are a panel, each with noise of its own. "
        "Shrinkage is measured on one half of the prompts by the held-out judges, and used on the other, both ways "
        f"round. The weak scorers are trained on {WEAK_ROWS} rows for {WEAK.epochs} epochs, one a seed. Made by "
        f"`python -m benchmarks.rerank_gap --prompts {len(offers)}`."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=120, help="held-out prompts (120)")
    parser.add_argument("--samples", type=Path, help="JSON lines of their answers; made where it is missing")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    return parser.parse_args()


if __name__ == "__main__":
    main()
