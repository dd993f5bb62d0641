"""What lies in the folder of a scorer of real text, and what can be told of it without loading it."""

import json
from pathlib import Path
from typing import Literal

TextScorerKind = Literal["refusal", "preference"]
REFUSAL_CLASSES = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")
"""The outputs of a refusal scorer's head in their order."""

SCHEMA_VERSION = 2
SCORER_FILE = "scorer.json"
HEAD_FILE = "head.safetensors"
NGRAMS_FILE = "ngrams.json"
ENCODER_FOLDER = "encoder"
PARTS = (ENCODER_FOLDER, HEAD_FILE, NGRAMS_FILE)
"""What lies beside SCORER_FILE, which is written last."""


def kind_of(folder: Path) -> TextScorerKind | None:
    """The kind of scorer that a folder holds; None where it holds none of real text."""
    path = folder / SCORER_FILE
    kind: TextScorerKind | None = json.loads(path.read_text()).get("kind") if path.exists() else None
    return kind


def check_whole(folder: Path) -> None:
    """Raises ValueError where a part of a scorer's folder is missing."""
    if missing := [name for name in PARTS if not (folder / name).exists()]:
        raise ValueError(f"{folder} has {SCORER_FILE} and no {', '.join(missing)}; train the scorer again")
