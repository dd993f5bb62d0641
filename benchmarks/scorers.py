"""Scorers of real text: how long one takes, and how well those of a recipe agree with labels they never saw.

    python -m benchmarks.scorers FOLDER… --data FILE
    python -m benchmarks.scorers agreement --data FOLDER --encoder FOLDER_OR_NAME [--markdown FILE]

The first tells milliseconds a response on one core, of folders that `rheostat train scorer` wrote, OUT/scorer. The
second needs xstest_completions, hh_harmless and alpaca_eval_preferences, each as .jsonl.gz, in one folder.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.scorer_agreement import agreement
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.scorers.labelled import read_refusals
from rheostat_training.scorers.timing import milliseconds

AGREEMENT = "agreement"


def main() -> None:
    if sys.argv[1:2] == [AGREEMENT]:
        agreement(_agreement_arguments(sys.argv[2:]))
    else:
        time(_timing_arguments(sys.argv[1:]))


def time(given: argparse.Namespace) -> None:
    """Prints a line for each folder."""
    dialogues = [row.dialogue for row in read_refusals([given.data]).rows]
    for folder in given.folders:
        scorer = TextScorer.load(folder)
        taken = milliseconds(scorer, dialogues, seed=given.seed)
        times = f"{taken.wall:.1f} ms on the clock, {taken.cpu:.1f} ms of the processor's time"
        print(f"{folder}: {scorer.kind}, a response takes {times}; medians, one core")


def _timing_arguments(given: list[str]) -> argparse.Namespace:
    parser = _parser()
    parser.add_argument("folders", nargs="+", type=Path, help="folders that `rheostat train scorer` wrote, OUT/scorer")
    parser.add_argument("--data", type=Path, required=True, help="refusal labels, whose answers are judged")
    return parser.parse_args(given)


def _agreement_arguments(given: list[str]) -> argparse.Namespace:
    parser = _parser()
    parser.add_argument("--data", type=Path, required=True, help="the folder of label files")
    parser.add_argument("--encoder", required=True, help="the sentence encoder, a folder or a name on the Hub")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    return parser.parse_args(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
