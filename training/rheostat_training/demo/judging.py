"""Measures a bundle that is already built, in process or as a running server serves it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rheostat_training.demo.asking import held_out
from rheostat_training.demo.bundle import BASE, PAIRS, check_bundle
from rheostat_training.demo.measure import MODES, ORACLE, Ask, in_process, measure, table, well_formed_share
from rheostat_training.demo.recipe import TrialPlan
from rheostat_training.models import load_base, load_with_adapter
from rheostat_training.samplers.server import ServerSampler
from rheostat_training.score import Judge, ScorerPair


def evaluate(
    bundle: Path,
    *,
    url: str | None,
    model: str,
    prompts: int,
    modes: Sequence[str] | None = None,
    candidates: int | None = None,
) -> str:
    """The table of every mode and judge, as Markdown.

    Raises:
        NoBundle: the folder is none.
        ValueError: there are not so many held-out prompts, or a mode is a server's alone and there is no `url`.
        ServerRefused: the server did not answer.
    """
    check_bundle(bundle)
    asked = tuple(modes or MODES)
    if url is None and (beyond := [mode for mode in asked if mode not in MODES]):
        raise ValueError(f"mode is {beyond[0]!r}; without a server's url it must be one of {', '.join(MODES)}")
    plan = replace(TrialPlan(), prompts=prompts)
    known = held_out(prompts)
    judges = judges_of(bundle)
    measured = []
    for mode in asked:
        ask = _ask(bundle, mode, plan, _server(url, model, mode, candidates))
        measured.append(measure(mode, ask, known, judges))
    return table(measured, well_formed_share(load_base(bundle / BASE), known, plan))


def judges_of(bundle: Path) -> dict[str, Judge]:
    """The oracle, the scorers that made the training data, and the pair that it never saw."""
    pairs = {name: ScorerPair.load(bundle / name / "safety", bundle / name / "helpfulness") for name in PAIRS}
    return {"oracle": ORACLE, **pairs}


def _server(url: str | None, model: str, mode: str, candidates: int | None) -> ServerSampler | None:
    """A sampler of the server, if there is one; the modes that rerank alone take a number of candidates."""
    if url is None:
        return None
    return ServerSampler(url, model, mode, candidates=candidates if "rerank" in mode else None)


def _ask(bundle: Path, mode: str, plan: TrialPlan, server: ServerSampler | None) -> Ask:
    if server is not None:
        return lambda requests: server.sample(requests, plan.sampling)
    base = bundle / BASE
    loaded = load_with_adapter(base, bundle / "adapter") if mode == "adapter" else load_base(base)
    return in_process(mode, loaded, plan)
