"""Asks a model in every mode that an evaluation knows, and keeps the answers, so that a killed run goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rheostat_training.evaluate import Trial, trials
from rheostat_training.generate import Sampler, SamplingPlan, generate
from rheostat_training.models import LoadedModel
from rheostat_training.modes import candidates, in_mode, reranked
from rheostat_training.progress import Progress
from rheostat_training.rows import Prompt, Request, Sample, read_rows
from rheostat_training.samplers.local import LocalSampler
from rheostat_training.score import Judge, ShownJudge


@dataclass(frozen=True)
class Asker:
    """A base model, and the same with an adapter; `scorers` choose among the rerank modes' candidates.

    Each is loaded when it is asked, and takes the other's place: they may be too large to be held side by side.
    """

    load_base: Callable[[], LoadedModel]
    load_dialled: Callable[[], LoadedModel]
    scorers: Judge
    sampling: SamplingPlan
    progress: Progress
    _held: dict[Callable[[], LoadedModel], LoadedModel] = field(default_factory=dict, init=False)

    def answers(self, mode: str, requests: Sequence[Request], folder: Path) -> list[Sample]:
        """One answer a request, in their order, by a mode of `modes`; what was asked is kept in `folder`."""
        count = candidates(mode)
        if count is not None:
            return self._reranked(count, requests, folder)
        asked = [in_mode(mode, request) for request in requests]
        sampler = LocalSampler(self._loaded(self.load_dialled if mode == "adapter" else self.load_base))
        return in_order(sampler, asked, self.sampling, folder, told=f"ask {mode}", progress=self.progress)

    def _loaded(self, load: Callable[[], LoadedModel]) -> LoadedModel:
        if load not in self._held:
            self._held.clear()
            self._held[load] = load()
        return self._held[load]

    def judged_in(self, mode: str, prompts: Mapping[str, Prompt]) -> Callable[[Sequence[Request], Path], list[Trial]]:
        """A function that asks in a mode and has the scorers judge the answers."""

        def ask(requests: Sequence[Request], folder: Path) -> list[Trial]:
            answers = self.answers(mode, requests, folder)
            with self.progress.task(f"judge {mode}", len(answers), unit="answers") as task:
                return trials(prompts, answers, ShownJudge(self.scorers, task))

        return ask

    def _reranked(self, count: int, requests: Sequence[Request], folder: Path) -> list[Sample]:
        """The candidates of a prompt are the same for all its dials: no dial reaches the model."""
        prompts = {request.id: Prompt(request.id, request.messages) for request in requests}
        plain = [Request(prompt.id, prompt.messages) for prompt in prompts.values()]
        drawn = replace(self.sampling, samples=count)
        told = f"ask rerank-{count}"
        file = generate(
            LocalSampler(self._loaded(self.load_base)), plain, drawn, folder, told=told, progress=self.progress
        )
        return reranked(prompts, list(read_rows(file, Sample)), requests, self.scorers)


def in_order(
    sampler: Sampler, requests: Sequence[Request], plan: SamplingPlan, folder: Path, *, told: str, progress: Progress
) -> list[Sample]:
    """One answer a request, in their order; see `generate.generate`."""
    numbered = [replace(request, id=str(place)) for place, request in enumerate(requests)]
    file = generate(sampler, numbered, replace(plan, samples=1), folder, told=told, progress=progress)
    rows = {int(row.prompt_id): row for row in read_rows(file, Sample)}
    return [replace(rows[place], prompt_id=request.id) for place, request in enumerate(requests)]
