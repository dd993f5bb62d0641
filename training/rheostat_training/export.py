"""The export stage: an adapter's folder as the server takes it, PEFT's files and `control.json`."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.calibration import Calibration
from rheostat_server.contract.control_text import DEFAULT_TEMPLATE
from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.contract.digest import adapter_digest, base_model_digest
from rheostat_server.contract.manifest import (
    BaseModelReference,
    ControlTextSpec,
    DialLevels,
    EvaluationRow,
    Manifest,
    TrainingRecord,
    write_manifest,
)
from rheostat_training.adapter_check import CONFIG, WEIGHTS, check_folder
from rheostat_training.evaluate import Evaluation
from rheostat_training.models import load_with_adapter, stored_dtype
from rheostat_training.publish import with_ordinary_permissions

SOFTWARE: Final = ("torch", "transformers", "peft", "rheostat")


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """What the manifest says beside what can be read off the files."""

    name: str
    base_name: str
    method: str
    levels: Mapping[DialName, Sequence[float]]
    data_digests: Mapping[str, str]
    licence: str = "Apache-2.0"
    base_revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    attainable: Mapping[DialName, tuple[float, float]] = field(default_factory=dict)
    evaluation: Sequence[EvaluationRow] = ()
    calibration: Calibration | None = None
    template: str = DEFAULT_TEMPLATE


def export_adapter(adapter: Path, base: Path, out: Path, facts: ExportFacts) -> Manifest:
    """Writes `out` whole or not at all; one that was there is replaced.

    Raises:
        NotServable: vLLM would not serve the adapter.
    """
    check_folder(adapter)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(adapter / name, partial / name)
    manifest = _manifest(partial, base, facts)
    write_manifest(manifest, partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return manifest


def merge_adapter(base: Path, adapter: Path, out: Path, *, trust_remote_code: bool = False) -> Path:
    """Writes the base model with the adapter in its weights, as safetensors with its tokenizer.

    One adapter serves every value of the dials by its control text, so a merged model does too, at no cost at run time.
    """
    dtype = stored_dtype(base, trust_remote_code=trust_remote_code)
    merged = load_with_adapter(base, adapter, dtype=dtype, trust_remote_code=trust_remote_code)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged.model.save_pretrained(partial)
    merged.tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    return with_ordinary_permissions(partial).replace(out)


def evaluation_rows(evaluation: Evaluation, *, mode: str, judge: str) -> list[EvaluationRow]:
    """An evaluation as the manifest's rows, one a dial."""
    return [
        EvaluationRow(mode=mode, dial=dial, judge=judge, prompts=evaluation.prompts, metrics=evaluation.metrics(dial))
        for dial in DIAL_NAMES
    ]


def _manifest(folder: Path, base: Path, facts: ExportFacts) -> Manifest:
    return Manifest(
        name=facts.name,
        base_model=BaseModelReference(
            name=facts.base_name, revision=facts.base_revision, digest=base_model_digest(base)
        ),
        dials={
            dial: DialLevels(levels=sorted(facts.levels[dial]), attainable=facts.attainable.get(dial))
            for dial in DIAL_NAMES
        },
        control_text=ControlTextSpec(template=facts.template),
        training=TrainingRecord(
            method=facts.method,
            settings=dict(facts.settings),
            data_digests=dict(facts.data_digests),
            software={name: version(name) for name in SOFTWARE},
        ),
        calibration=facts.calibration,
        evaluation=list(facts.evaluation),
        licence=facts.licence,
        weights_digest=adapter_digest(folder),
    )
