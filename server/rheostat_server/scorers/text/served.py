"""A scorer of real text as an operator describes it: its level for the dial that it is to judge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rheostat_server.scorers import UNJUDGED, Dialogue, ScorerCard, Scores
from rheostat_server.scorers.device import check_device
from rheostat_server.scorers.spec.text import PreferenceSpec, RefusalSpec
from rheostat_server.scorers.text.folder import check_whole, kind_of
from rheostat_server.scorers.text.text_scorer import TextScorer
from rheostat_server.scorers.weights import model_folder, scorer_digest


@dataclass(frozen=True, slots=True)
class ServedTextScorer:
    """A LocalScorer of one dial. An empty answer cannot be judged."""

    card: ScorerCard
    scorer: TextScorer

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        asked = [dialogue for dialogue in dialogues if dialogue.is_answered]
        levels = iter(self.scorer.levels(asked))
        return [self._scores(next(levels)) if dialogue.is_answered else UNJUDGED for dialogue in dialogues]

    def _scores(self, level: float) -> Scores:
        if not math.isfinite(level):
            return UNJUDGED
        [dial] = self.card.dials
        unhelpful = self.scorer.kind == "refusal" and dial == "helpfulness"
        return Scores(**{dial: 1 - level if unhelpful else level})


def load_text_scorer(spec: RefusalSpec | PreferenceSpec) -> ServedTextScorer:
    """The scorer of a spec.

    Raises:
        ValueError, OSError: the folder is none of `rheostat train scorer`, or of another kind; the message says why.
    """
    check_device(spec.device)
    folder = model_folder(spec.model, revision=spec.revision)
    found = kind_of(folder)
    if found != spec.kind:
        held = f"a scorer of kind {found}" if found else "no scorer of real text"
        raise ValueError(
            f"model is {spec.model!r}, which holds {held}; kind {spec.kind} takes what `rheostat train scorer --kind "
            f"{spec.kind}` wrote, its OUT/scorer"
        )
    check_whole(folder)
    scorer = TextScorer.load(folder, batch_rows=spec.batch_rows, device=spec.device)
    card = ScorerCard(spec.title, spec.kind, scorer_digest(folder, {"dial": spec.dial}), (spec.dial,))
    return ServedTextScorer(card, scorer)
