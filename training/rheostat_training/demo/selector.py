"""The demo's selector: one scorer of both dials, which a server chooses among candidates by, whole or just begun."""

from pathlib import Path
from typing import Any

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_training.demo.labelled import rows_of_both
from rheostat_training.demo.recipe import SelectorPlan
from rheostat_training.progress import Progress
from rheostat_training.scorer_cut import cut_rows
from rheostat_training.scorer_fit import ScorerReport, fit_scorer


def fit_selector(
    tokenizer: Any, plan: SelectorPlan, out: Path, *, seed: int, progress: Progress | None = None
) -> ScorerReport:
    """Trains it into `out/model`, on rows that neither the scorers nor the judges are trained on."""
    rows = cut_rows(rows_of_both(plan.rows, purpose="selector", seed=seed), tokenizer, plan.cuts, seed=seed)
    return fit_scorer(rows, tokenizer, plan.fit, out, heads=DIAL_NAMES, progress=progress)
