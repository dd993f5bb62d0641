"""The export stage: from the figures of a run to its adapter folder, its evaluation and its report."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rheostat_server.contract.calibration import Calibration
from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.contract.manifest import Manifest
from rheostat_training.calibrate import Checked
from rheostat_training.config import RunConfig, as_values
from rheostat_training.distil import DistilPlan
from rheostat_training.evaluate import FIGURES_FILE, EvaluationFile, Evaluations, read_evaluations
from rheostat_training.export import ExportFacts, evaluation_rows, export_adapter, merge_adapter
from rheostat_training.lora import ADAPTER
from rheostat_training.materials import Materials
from rheostat_training.report import JudgeRole, RunFacts, StageFact, read_losses, write_model_card, write_report
from rheostat_training.resume import read_value, write_json
from rheostat_training.sources import ORACLE, SCORERS
from rheostat_training.stage import StageResult

EVALUATION_FILE: Final = "evaluation.json"
MERGED: Final = "merged"


def finish(config: RunConfig, materials: Materials, done: Mapping[str, StageResult], out: Path) -> None:
    """Writes `adapter/`, `evaluation.json`, the report, and, where it is asked for, `merged/`."""
    found = read_evaluations(done["evaluate"].folder / FIGURES_FILE)
    curves: Calibration = read_value(done["calibrate"].folder / "calibration.json", Calibration)
    checked: dict[str, Checked] = read_value(done["calibrate"].folder / "checks.json", dict[str, Checked])
    facts = _export_facts(config, materials, done, found.modes, curves)
    manifest = export_adapter(done["fit"].folder / ADAPTER, materials.base_folder, out / ADAPTER, facts)
    write_model_card(manifest, out / ADAPTER)
    if config.export.merge:
        trust = config.base.trust_remote_code
        merge_adapter(materials.base_folder, out / ADAPTER, out / MERGED, trust_remote_code=trust)
    write_json(out / EVALUATION_FILE, _evaluation(manifest, found, curves, checked, materials))
    write_report(_run_facts(config, materials, done, found, curves, checked, manifest), out)


def _export_facts(
    config: RunConfig,
    materials: Materials,
    done: Mapping[str, StageResult],
    found: Evaluations,
    curves: Calibration,
) -> ExportFacts:
    rows = [
        row
        for mode, by_judge in found.items()
        for judge, evaluation in by_judge.items()
        for row in evaluation_rows(evaluation, mode=mode, judge=judge)
    ]
    attainable: dict[DialName, tuple[float, float]] = {
        dial: curve.attainable for dial, curve in curves["adapter"].items()
    }
    return ExportFacts(
        name=config.name,
        base_name=materials.base_name,
        base_revision=config.base.revision,
        method=_method(config),
        levels=_levels(config.distil),
        data_digests={name: done[name].digest for name in ("generate", "score", "distil")},
        licence=config.export.licence,
        settings=training_settings(config),
        attainable=attainable,
        evaluation=rows,
        calibration=curves,
    )


def training_settings(config: RunConfig) -> dict[str, Any]:
    """What was done with the data; where models and servers were found is nobody's business but the run's."""
    values = as_values(config)
    asked = {name: values["generate"][name] for name in ("engine", "worded", "sampling")}
    return {"generate": asked, **{name: values[name] for name in ("distil", "fit", "reinforce", "calibrate")}}


def _method(config: RunConfig) -> str:
    parts = [config.distil.method, config.fit.loss, config.reinforce.algorithm if config.reinforce else ""]
    return "+".join(filter(None, parts))


def _levels(plan: DistilPlan) -> dict[DialName, list[float]]:
    """Raw examples have no levels but all values: their ends stand for them."""
    levels = [place / (plan.levels - 1) for place in range(plan.levels)] if plan.method == "moec" else [0.0, 1.0]
    return dict.fromkeys(DIAL_NAMES, levels)


def _evaluation(
    manifest: Manifest,
    found: EvaluationFile,
    curves: Calibration,
    checked: Mapping[str, Checked],
    materials: Materials,
) -> dict[str, Any]:
    """What `evaluation.json` holds."""
    return {
        "schema_version": 1,
        "adapter": manifest.id,
        "base_model": manifest.base_model.model_dump(),
        "judges": {name: _role(name, materials) for name in materials.judges},
        "modes": {
            mode: {judge: evaluation.as_dict() for judge, evaluation in by_judge.items()}
            for mode, by_judge in found.modes.items()
        },
        "unjudged": found.unjudged,
        "calibration": {
            mode: {
                "attainable": {dial: curve.attainable for dial, curve in by_dial.items()},
                "largest_miss": checked[mode].largest_miss(),
                "answers": checked[mode].answers,
                "unjudged": checked[mode].unjudged,
            }
            for mode, by_dial in curves.items()
        },
    }


def _run_facts(
    config: RunConfig,
    materials: Materials,
    done: Mapping[str, StageResult],
    found: EvaluationFile,
    curves: Calibration,
    checked: Mapping[str, Checked],
    manifest: Manifest,
) -> RunFacts:
    read = materials.prompts_read
    misses = [
        f"{mode}: over the attainable range the mean score misses the dial by at most {miss['before']:.3f} before "
        f"calibration and {miss['after']:.3f} after it."
        for mode, miss in ((mode, each.largest_miss()) for mode, each in checked.items())
        if None not in miss.values()
    ]
    return RunFacts(
        title=config.name,
        when=datetime.now(UTC),
        modes=found.modes,
        unjudged=found.unjudged,
        judges={name: _role(name, materials) for name in materials.judges},
        summary=[f"Adapter {manifest.id} for {manifest.base_model.name}, {manifest.training.method}.", *misses],
        calibration=curves,
        checked=checked,
        losses=read_losses(done["fit"].folder / "fit" / "log.jsonl"),
        settings={name: value for name, value in training_settings(config).items() if value},
        stages=[StageFact(name, result.seconds, result.skipped, dict(result.figures)) for name, result in done.items()],
        lineage={
            "base model": materials.base_digest,
            "adapter weights": manifest.weights_digest,
            **{name: result.digest for name, result in done.items()},
        },
        not_run=[replace(read, source=Path(read.source).name if read.is_here else read.source).summary()],
    )


def _role(name: str, materials: Materials) -> JudgeRole:
    """By what a judge is, not by what it is called."""
    digest = materials.judges[name].digest
    if name == SCORERS or digest == materials.scorers.digest:
        return "training"
    return "oracle" if digest == ORACLE else "held-out"
