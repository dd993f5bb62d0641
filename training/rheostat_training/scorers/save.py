"""Writes a scorer of real text into a folder that the server loads too; nothing in it is a pickle."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rheostat_server.scorers.text.encoder import Encoder
from rheostat_server.scorers.text.folder import (
    ENCODER_FOLDER,
    HEAD_FILE,
    NGRAMS_FILE,
    REFUSAL_CLASSES,
    SCHEMA_VERSION,
    SCORER_FILE,
)
from rheostat_server.scorers.text.head import Head
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_training.resume import write_json


def save_text_scorer(scorer: TextScorer, folder: Path) -> Path:
    """Writes what `TextScorer.load` reads; the JSON file comes last, so that a folder with it is whole."""
    _save_encoder(scorer.encoder, folder / ENCODER_FOLDER)
    _save_head(scorer.head, folder)
    facts = {"schema_version": SCHEMA_VERSION, "kind": scorer.kind, "features": asdict(scorer.plan)}
    named = {"classes": list(REFUSAL_CLASSES)} if scorer.kind == "refusal" else {}
    return write_json(folder / SCORER_FILE, {**facts, **named})


def _save_encoder(encoder: Encoder, folder: Path) -> None:
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)


def _save_head(head: Head, folder: Path) -> None:
    rarity = {f"rarity.{count}": values for count, values in head.ngrams.rarity.items()}
    weights = {"weight": head.weight, "bias": head.bias, **rarity}
    save_file({name: np.ascontiguousarray(values, np.float32) for name, values in weights.items()}, folder / HEAD_FILE)
    write_json(folder / NGRAMS_FILE, head.ngrams.terms)
