"""What reranking gains and what it costs, on the demo model.

    python -m benchmarks.rerank quality [--engine embedded|vllm] [--prompts N]
    python -m benchmarks.rerank early [--engine …] [--prompts N]
    python -m benchmarks.rerank speed [--rounds N]
    python -m benchmarks.rerank peer --optillm PATH/bin/optillm [--prompts N]

`quality` sets the modes side by side, by the scorers that select, by held-out judges and by the oracle. `early` does so
for one N with and without early stop, and counts tokens. `speed` times N = 8 against one answer, and 64 requests at
once with N following the load and without. `peer` asks one bare vLLM through Rheostat and through optillm, whose `bon`
rates candidates; optillm has to be installed in an environment of its own. Each prints its section; with
--markdown FILE it replaces it there.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.overhead_report import with_section
from benchmarks.rerank_peer import peer
from benchmarks.rerank_quality import early, quality
from benchmarks.rerank_speed import speed

BY_ENGINE: Final = ("quality", "early")
Section = Callable[[argparse.Namespace, Path], str]
SECTIONS: Final[Mapping[str, Section]] = {"quality": quality, "early": early, "speed": speed, "peer": peer}


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        section = SECTIONS[given.section](given, Path(folder))
    print(section)
    if given.markdown:
        text = given.markdown.read_text() if given.markdown.exists() else "# Benchmarks\n"
        given.markdown.write_text(with_section(text, section, _name(given)))


def _name(given: argparse.Namespace) -> str:
    """Of the section in the file: those that take an engine have one for each."""
    return f"rerank-{given.section}" + (f"-{given.engine}" if given.section in BY_ENGINE else "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--engine", choices=("embedded", "vllm"), default="embedded")
    parser.add_argument("--prompts", type=int, default=60, help="held-out prompts, each at 3 x 3 dials (60)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optillm", type=Path, help="optillm's program")
    parser.add_argument("--markdown", type=Path, help="file whose section of this benchmark is replaced")
    given = parser.parse_args()
    if given.section == "peer" and given.optillm is None:
        sys.exit("peer needs --optillm, the program of an environment into which `pip install optillm` was run")
    return given


if __name__ == "__main__":
    main()
