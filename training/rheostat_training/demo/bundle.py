"""What lies in the folder of a bundle, and whether a folder is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

BASE: Final = "base"
PAIRS: Final = ("scorers", "judges")
SELECTOR: Final = "selector"
MODELS: Final = (BASE, "adapter", *PAIRS, SELECTOR)
RECIPE_FILE: Final = "recipe.json"


class NoBundle(ValueError):
    """A folder is to be read as a bundle, or replaced as one, and is none."""


def check_bundle(folder: Path) -> None:
    """Raises NoBundle unless the folder holds the models of a bundle."""
    if missing := [name for name in MODELS if not (folder / name).is_dir()]:
        raise NoBundle(f"{folder} is no bundle: it has no {', '.join(missing)}; `rheostat demo build` makes one")


def check_out(out: Path, work: Path, stages: Sequence[str]) -> None:
    """Raises NoBundle unless a bundle may be put in the place of `out`: nothing but a bundle is ever replaced.

    `stages` are the names of the folders that a build makes in `work`.
    """
    place, around = out.resolve(), work.resolve()
    if around.is_relative_to(place):
        raise NoBundle(f"--out {out} holds --work {work}, and would be replaced with it; give another --out")
    if inside := [name for name in stages if place.is_relative_to(around / name)]:
        raise NoBundle(f"--out {out} lies in {inside[0]}, a stage of --work {work}; give another --out")
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not all((place / name).exists() for name in (*MODELS, RECIPE_FILE)):
        raise NoBundle(
            f"--out {out} is there and is no bundle, and a bundle would replace it; give another --out, or remove it"
        )
