"""A classifier as an operator describes it: its outputs become levels of one dial or of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.scorers import UNJUDGED, Dialogue, ScorerCard, Scores
from rheostat_server.scorers.classifier import Classifier, Outputs
from rheostat_server.scorers.device import check_device
from rheostat_server.scorers.scales import Gauge
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_server.scorers.weights import model_folder, scorer_digest


@dataclass(frozen=True, slots=True)
class ClassifierScorer:
    """A LocalScorer with a gauge for each dial that its model judges. An empty answer cannot be judged."""

    card: ScorerCard
    classifier: Classifier
    gauges: Mapping[DialName, Gauge]

    def scores(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        asked = [dialogue for dialogue in dialogues if dialogue.is_answered]
        found = iter(self.classifier.outputs(asked))
        return [self._scores(next(found)) if dialogue.is_answered else UNJUDGED for dialogue in dialogues]

    def _scores(self, outputs: Outputs | None) -> Scores:
        if outputs is None:
            return UNJUDGED
        return Scores(**{dial: gauge.level(outputs) for dial, gauge in self.gauges.items()})


def load_classifier(spec: ClassifierSpec) -> ClassifierScorer:
    """The scorer of a spec.

    Raises:
        ValueError, OSError: the model cannot be had, or the spec does not fit it; the message says why.
    """
    check_device(spec.device)
    folder = model_folder(spec.model, revision=spec.revision, code=spec.trust_remote_code)
    classifier = Classifier.load(
        folder,
        batch_rows=spec.batch_rows,
        device=spec.device,
        dtype=spec.dtype,
        reads=spec.reads,
        max_tokens=spec.max_tokens,
        cut_answers=spec.cut_answers,
        trust_remote_code=spec.trust_remote_code,
    )
    gauges = gauges_of(spec, classifier.labels)
    digest = scorer_digest(folder, _facts(classifier, gauges), code=spec.trust_remote_code)
    dials: tuple[DialName, ...] = tuple(dial for dial in DIAL_NAMES if dial in gauges)
    return ClassifierScorer(ScorerCard(spec.title, spec.kind, digest, dials), classifier, gauges)


def gauges_of(spec: ClassifierSpec, labels: Sequence[str]) -> dict[DialName, Gauge]:
    """The gauges of a model whose outputs have these names.

    Raises:
        ValueError: a head does not fit the model, or both dials read one output in one way.
    """
    gauges: dict[DialName, Gauge] = {dial: Gauge.of(head, labels) for dial, head in spec.judged.items()}
    if len(gauges) == 2 and gauges["safety"] == gauges["helpfulness"]:
        raise ValueError("heads read one output for safety and helpfulness alike; the dials would be one")
    return gauges


def _facts(classifier: Classifier, gauges: Mapping[DialName, Gauge]) -> dict[str, Any]:
    """What decides the levels beside the model's files."""
    return {
        "gauges": {dial: TypeAdapter(Gauge).dump_python(gauge, mode="json") for dial, gauge in gauges.items()},
        "reads": classifier.form,
        "dtype": str(classifier.model.dtype),
        "tokens": classifier.longest,
        "cut_answers": classifier.cut_answers,
    }
