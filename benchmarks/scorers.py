"""Milliseconds a response of a scorer of real text, on one core: python -m benchmarks.scorers FOLDER… --data FILE."""

import argparse
from pathlib import Path

from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.scorers.labelled import read_refusals
from rheostat_training.scorers.timing import milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders that `rheostat train scorer` wrote, OUT/scorer")
    parser.add_argument("--data", type=Path, required=True, help="refusal labels, whose answers are judged")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dialogues = [row.dialogue for row in read_refusals([options.data]).rows]
    for folder in options.folders:
        scorer = TextScorer.load(folder)
        taken = milliseconds(scorer, dialogues, seed=options.seed)
        times = f"{taken.wall:.1f} ms on the clock, {taken.cpu:.1f} ms of the processor's time"
        print(f"{folder}: {scorer.kind}, a response takes {times}; medians, one core")


if __name__ == "__main__":
    main()
