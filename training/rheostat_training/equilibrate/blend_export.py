"""The export of a method's adapters as a blend: their folders and `blend.json`, as the server takes them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.blend import BlendManifest, Component, WeightCurve, read_blend, write_blend
from rheostat_server.contract.dials import DialName
from rheostat_server.contract.digest import adapter_digest, base_model_digest
from rheostat_server.contract.manifest import (
    MANIFEST_FILE,
    BaseModelReference,
    ControlTextSpec,
    EvaluationRow,
    Manifest,
    TrainingRecord,
    read_manifest,
)
from rheostat_training.adapter_check import CONFIG, WEIGHTS, check_folder
from rheostat_training.export import SOFTWARE
from rheostat_training.publish import with_ordinary_permissions

COMPONENTS: Final = "components"
"""The folder of the adapters within a blend's."""


@dataclass(frozen=True, slots=True)
class BlendPart:
    """An adapter's folder and its weight: the same always, or by a dial. 1 is the adapter as it was trained."""

    name: str
    adapter: Path
    weight: WeightCurve | float


@dataclass(frozen=True, slots=True)
class BlendFacts:
    """What `blend.json` says beside what can be read off the files."""

    name: str
    base_name: str
    method: str
    data_digests: Mapping[str, str]
    grid: int = 5
    licence: str = "Apache-2.0"
    base_revision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Sequence[EvaluationRow] = ()


def rising(dial: DialName, most: float = 1.0, *, middle: float | None = None) -> WeightCurve:
    """A weight that rises with its dial from 0 to `most`, along a line; where it is given, by way of `middle` at 0.5.

    Raises:
        ValueError: a weight is out of the contract's range, or the middle is above the most.
    """
    between = [] if middle is None else [(0.5, middle)]
    return WeightCurve(dial=dial, points=[(0.0, 0.0), *between, (1.0, most)])


def export_blend(parts: Sequence[BlendPart], base: Path, out: Path, facts: BlendFacts) -> BlendManifest:
    """Writes `out` whole or not at all; one that was there is replaced.

    No weight is below 0: an adapter taken away would undo what it was trained for, and a safety patch turned round
    would make unsafe answers likelier. A `control.json` beside an adapter goes with it, and its control text is the
    blend's.

    Raises:
        NotServable: vLLM would not serve an adapter.
        ValueError: there is no part, a weight is below 0, an adapter was trained on another base model, or two with
            different control texts; or the manifest does not fit its schema.
    """
    _check(parts, base)
    manifest = _manifest(parts, base, facts)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part in parts:
        folder = partial / COMPONENTS / part.name
        folder.mkdir(parents=True)
        for name in (WEIGHTS, CONFIG, MANIFEST_FILE):
            if (part.adapter / name).exists():
                shutil.copyfile(part.adapter / name, folder / name)
    write_blend(manifest, partial)
    shutil.rmtree(out, ignore_errors=True)
    with_ordinary_permissions(partial).replace(out)
    return read_blend(out)


def _check(parts: Sequence[BlendPart], base: Path) -> None:
    if not parts:
        raise ValueError("parts are empty; a blend needs at least one adapter")
    digest = base_model_digest(base)
    for part in parts:
        check_folder(part.adapter)
        if isinstance(part.weight, float) and part.weight < 0:
            raise ValueError(f"the weight of {part.name!r} is {part.weight:g}; it must be 0 or more")
        found = _trained(part)
        if found and found.base_model.digest != digest:
            raise ValueError(
                f"{part.adapter / MANIFEST_FILE}: base_model.digest is {found.base_model.digest}; that of {base} is "
                f"{digest}"
            )
    texts = sorted({found.control_text.template for part in parts if (found := _trained(part))})
    if len(texts) > 1:
        raise ValueError(f"adapters have the control texts {texts[0]!r} and {texts[1]!r}; a blend has one")


def _trained(part: BlendPart) -> Manifest | None:
    """The manifest of an adapter that was trained with control text; None where there is none."""
    return read_manifest(part.adapter) if (part.adapter / MANIFEST_FILE).exists() else None


def _manifest(parts: Sequence[BlendPart], base: Path, facts: BlendFacts) -> BlendManifest:
    texts = [found.control_text.template for part in parts if (found := _trained(part))]
    return BlendManifest(
        name=facts.name,
        base_model=BaseModelReference(
            name=facts.base_name, revision=facts.base_revision, digest=base_model_digest(base)
        ),
        components=[
            Component(
                name=part.name,
                folder=f"{COMPONENTS}/{part.name}",
                weights_digest=adapter_digest(part.adapter),
                weight=part.weight,
            )
            for part in parts
        ],
        grid=facts.grid,
        control_text=ControlTextSpec(template=texts[0]) if texts else None,
        training=TrainingRecord(
            method=facts.method,
            settings=json.loads(json.dumps(dict(facts.settings))),
            data_digests=dict(facts.data_digests),
            software={name: version(name) for name in SOFTWARE},
        ),
        evaluation=list(facts.evaluation),
        licence=facts.licence,
    )
