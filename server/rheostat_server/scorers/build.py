"""From the operator's file to a server's panel: read and checked, then each scorer loaded by its kind's builder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rheostat_server.contract.dials import DialName
from rheostat_server.engines import Engine
from rheostat_server.packages import missing
from rheostat_server.scorers import Scorer
from rheostat_server.scorers.batching import Batched
from rheostat_server.scorers.panel import Member, Panel, Shrinkage
from rheostat_server.scorers.spec import ScorersFile, ScorerSpec
from rheostat_server.scorers.spec.asked import LabelReadSpec
from rheostat_server.scorers.spec.classifier import SCALE_TAGS, ClassifierSpec
from rheostat_server.scorers.spec.common import ModelSpec, ScorersError
from rheostat_server.scorers.spec.guard import GuardSpec
from rheostat_server.scorers.spec.remote import AnyRemoteSpec
from rheostat_server.scorers.spec.text import PreferenceSpec, RefusalSpec

Build = Callable[[Any, Engine | None], Scorer]
Weighed = tuple[Scorer, float]

LONGEST_VALUE: Final = 80


def read_scorers(path: Path) -> ScorersFile:
    """The scorers that a YAML file names; nothing is loaded. A model's folder is looked for beside the file first.

    Raises:
        ScorersError: the file cannot be read or does not fit; the message names every field at fault and its value.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ScorersError(f"the scorers' file {path} cannot be read: {exc}") from exc
    try:
        return _beside(path, ScorersFile.model_validate(found))
    except ValidationError as exc:
        told = "\n".join(_told(error) for error in exc.errors(include_url=False))
        raise ScorersError(f"the scorers' file {path} does not fit:\n{told}") from exc


def load_panel(file: ScorersFile, engine: Engine) -> Panel:
    """The panel of a file; `engine` is the one that is asked where the serving model is its own judge.

    Raises:
        CannotStart: a scorer cannot be loaded, or a dial is judged by none.
    """
    shrinkage: dict[DialName, Shrinkage] = {
        dial: Shrinkage(told.reliability, told.mean) for dial, told in file.shrink.items()
    }
    return Panel([Member(scorer, weight) for scorer, weight in load_scorers(file.scorers, engine)], shrinkage)


def load_scorers(specs: Sequence[ScorerSpec], engine: Engine | None = None) -> list[Weighed]:
    """Each scorer with its weight, in their order.

    Raises:
        ScorersError: two go by one name, a model cannot be had or does not fit its spec, or a package is missing.
    """
    loaded: list[Weighed] = []
    for at, spec in enumerate(specs):
        try:
            scorer = BUILDERS[spec.kind](spec, engine)
        except (ValueError, OSError) as exc:
            raise ScorersError(f"scorers.{at} ({spec.kind}): {exc}") from exc
        _check_name(at, scorer.card.name, [other.card.name for other, _ in loaded])
        loaded.append((scorer, spec.weight))
    return loaded


def _beside(path: Path, file: ScorersFile) -> ScorersFile:
    return file.model_copy(update={"scorers": [_with_folder(path.parent, spec) for spec in file.scorers]})


def _with_folder(folder: Path, spec: ScorerSpec) -> ScorerSpec:
    if not isinstance(spec, ModelSpec) or not (folder / spec.model).is_dir():
        return spec
    return spec.model_copy(update={"model": str(folder / spec.model)})


def _classifier(spec: ClassifierSpec, engine: Engine | None) -> Scorer:
    _check_installed("torch", "transformers", "safetensors")
    from rheostat_server.scorers.classifier_scorer import load_classifier

    return Batched(load_classifier(spec), spec.limits, threads=spec.threads)


def _guard(spec: GuardSpec, engine: Engine | None) -> Scorer:
    _check_installed("torch", "transformers", "safetensors")
    from rheostat_server.scorers.guard import build_guard

    return Batched(build_guard(spec), spec.limits, threads=spec.threads)


def _label_read(spec: LabelReadSpec, engine: Engine | None) -> Scorer:
    from rheostat_server.scorers.label_read import build_label_read

    if engine is None:
        raise ValueError("the serving model is asked, and there is no engine here")
    return build_label_read(spec, engine)


def _remote(spec: AnyRemoteSpec, engine: Engine | None) -> Scorer:
    from rheostat_server.scorers.remote import build_remote

    return build_remote(spec)


def _text(spec: RefusalSpec | PreferenceSpec, engine: Engine | None) -> Scorer:
    _check_installed("torch", "transformers", "safetensors", "sklearn", "scipy")
    from rheostat_server.scorers.text.served import load_text_scorer

    return Batched(load_text_scorer(spec), spec.limits, threads=spec.threads)


BUILDERS: Final[dict[str, Build]] = {
    "classifier": _classifier,
    "guard": _guard,
    "label_read": _label_read,
    "remote": _remote,
    "refusal": _text,
    "preference": _text,
}


def _check_installed(*modules: str) -> None:
    if names := missing(*modules):
        raise ScorersError(f"{', '.join(names)} is not installed: pip install '.[scorers]' in the checkout")


def _check_name(at: int, name: str, others: Sequence[str]) -> None:
    if name in others:
        raise ScorersError(f"scorers.{at} goes by the name {name!r}, as scorers.{others.index(name)}; give it a name")


def _told(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"] if part not in (*BUILDERS, *SCALE_TAGS)) or "the file"
    value = "not shown" if "key_env" in error["loc"] else repr(error["input"])
    short = value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}…"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}; it is {short}"
