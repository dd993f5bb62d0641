"""The guard scorer: a generative safety guard, judged by the probability of its verdict's token; read this first.

`guard_formats.py` says how each family is asked and answers, `guard_prompts.py` writes the prompt and finds the
verdict's place in it, `guard_model.py` runs the model.
"""

from dataclasses import asdict
from pathlib import Path

from rheostat_server.scorers import LocalScorer, ScorerCard
from rheostat_server.scorers.spec.common import ScorersError
from rheostat_server.scorers.spec.guard import GuardSpec
from rheostat_server.scorers.weights import model_folder, scorer_digest


def build_guard(spec: GuardSpec) -> LocalScorer:
    """Loads the guard that an operator names.

    Raises:
        ScorersError: its files are not there, or they do not fit the format; the message says why.
    """
    from rheostat_server.scorers.guard_model import Guard, context_of, load_network, load_prompts

    format, trust = spec.guard_format(), spec.trust_remote_code
    try:
        folder = model_folder(spec.model, revision=spec.revision, code=trust)
        digest = scorer_digest(folder, _facts(spec), code=trust)
        network = load_network(folder, device=spec.device, dtype=spec.dtype, trust_remote_code=trust)
        prompts = load_prompts(
            folder, format, max_tokens=spec.max_tokens, context=context_of(network), trust_remote_code=trust
        )
    except ValueError as exc:
        raise ScorersError(f"the guard {spec.model!r} ({spec.format}) cannot be used: {exc}") from exc
    card = ScorerCard(spec.name or Path(spec.model).name, "guard", digest, ("safety",))
    return Guard(card, network, prompts, format, least_mass=spec.least_mass)


def _facts(spec: GuardSpec) -> dict[str, object]:
    """What decides the levels beside the files."""
    settings = {"least_mass": spec.least_mass, "max_tokens": spec.max_tokens, "dtype": spec.dtype}
    return {"format": asdict(spec.guard_format()), **settings}
