"""Whether a run can come to its end, asked before it spends its hours."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch

from rheostat_server.contract.dials import Dials
from rheostat_server.contract.wordings import default_wordings
from rheostat_server.scorers.text.folder import kind_of
from rheostat_training.adapter_check import EXPERTS_ON_A_CPU, check_architecture, has_experts
from rheostat_training.conditioning import TemplateRefuses, prompt_text, token_ids
from rheostat_training.config import DEMO, BadConfig, JudgeSource, RunConfig, ScorerFolders
from rheostat_training.crew import Crew
from rheostat_training.evaluate import grid
from rheostat_training.materials import Materials
from rheostat_training.models import Room
from rheostat_training.modes import in_mode
from rheostat_training.rows import Messages, Prompt, Request
from rheostat_training.score import check_helpfulness, check_scorer
from rheostat_training.sources import model_folder
from rheostat_training.stage_names import STAGES, StageName
from rheostat_training.tracking import check_tracker
from rheostat_training.worded import LEVELS

SYSTEM: Final = "Answer in one sentence."
ASKED: Final = "What does this do?"
DIALS: Final = Dials(safety=0.25, helpfulness=0.75)


def check_run(config: RunConfig, materials: Materials, until: StageName) -> None:
    """Asks whatever is cheap to ask of tracker, scorers, judges, base model, tokenizer and prompts.

    Raises:
        BadConfig: a stage up to `until` would fail; the message says everything that was found.
    """
    stages = STAGES[: STAGES.index(until) + 1]
    prompts = [*raised(lambda: materials.training_prompts)]
    base = [*raised(lambda: materials.base_digest, lambda: materials.loading)] or [*_base(config, materials, stages)]
    room = [] if prompts or base else _room(config, materials, stages)
    trackers = raised(lambda: check_tracker(config.report_to)) if "fit" in stages else ()
    found = [*trackers, *_judges(config, materials, stages), *prompts, *base, *room]
    if found:
        raise BadConfig("\n".join(found))


def check_launched(config: RunConfig, crew: Crew, until: StageName) -> None:
    """Asks whether the processes of a launch can make the run together.

    Raises:
        BadConfig: they cannot; the message says everything that was found.
    """
    if found := [*_of_launch(config, crew, until)]:
        raise BadConfig("\n".join(found))


def _of_launch(config: RunConfig, crew: Crew, until: StageName) -> Iterator[str]:
    if crew.many and config.reinforce:
        yield "reinforce is given, which runs in one process: make the fit first, then go on without accelerate"
    if not crew.sharded:
        return
    if until != "fit":
        yield (
            "this launch shards the model, which the fit alone can use: launch `rheostat train fit` so, and make the "
            "stages before and after it in one process, without accelerate"
        )
    if config.base.quantize != "none":
        yield f"base.quantize is {config.base.quantize!r}; it must be 'none' where a launch shards the model"
    yield from (f"fit.{line}" for told in raised(config.fit.check_sharded) for line in told.splitlines())


def raised(*asks: Callable[[], object]) -> Iterator[str]:
    """What each of these is refused with."""
    for ask in asks:
        try:
            ask()
        except (ValueError, OSError) as exc:
            yield str(exc)


def _judges(config: RunConfig, materials: Materials, stages: tuple[StageName, ...]) -> Iterator[str]:
    sources: dict[str, JudgeSource] = {"score.scorers": config.score.scorers} if "score" in stages else {}
    if "evaluate" in stages:
        sources |= {f"evaluate.judges.{name}": source for name, source in config.evaluate.judges.items()}
    if isinstance(config.score.scorers, str) and config.prompts.source.source != DEMO and "score" in stages:
        materials.say(f"score.scorers are {config.score.scorers}, which know the demo world alone; name your own")
    for name, source in sources.items():
        if isinstance(source, ScorerFolders):
            yield from (f"{name}: {told}" for told in _scorers(source))


def _scorers(folders: ScorerFolders) -> Iterator[str]:
    def check_second() -> None:
        folder = model_folder(folders.helpfulness)
        check_scorer(folder)
        check_helpfulness(kind_of(folder))

    yield from raised(lambda: check_scorer(model_folder(folders.safety)), check_second)


def _base(config: RunConfig, materials: Materials, stages: tuple[StageName, ...]) -> Iterator[str]:
    for name in materials.base_config.architectures or () if "fit" in stages else ():
        yield from raised(partial(check_architecture, name))
    if "fit" in stages and has_experts(materials.base_config) and not torch.cuda.is_available():
        materials.say(EXPERTS_ON_A_CPU)
    tokenizer = materials.tokenizer
    if tokenizer.chat_template is None:
        yield f"base.model {config.base.model!r} has no chat template, and control text is the end of a user's turn"
        return
    yield from _template(config, tokenizer, stages)
    if "fit" in stages and config.reinforce:
        yield from one_gpu(materials.loading["device"])


def one_gpu(device: str) -> Iterator[str]:
    """Asks whether a policy gradient has the one GPU that it runs on."""
    count = torch.cuda.device_count()
    if device == "cuda" and count > 1:
        yield f"reinforce runs on one GPU, and torch sees {count}: set CUDA_VISIBLE_DEVICES to one of them"


def _template(config: RunConfig, tokenizer: Any, stages: tuple[StageName, ...]) -> Iterator[str]:
    asked: Messages = ({"role": "user", "content": ASKED},)
    if (refused := _refused(tokenizer, asked)) is not None:
        yield refused
        return
    worded = ["generate.worded"] if config.generate.worded else []
    if "evaluate" in stages and "prompt" in config.evaluate.modes:
        worded.append("the mode 'prompt' of evaluate.modes")
    with_system: Messages = ({"role": "system", "content": SYSTEM}, *asked)
    refused = _refused(tokenizer, with_system)
    silent = refused is None and SYSTEM not in prompt_text(tokenizer, with_system, DIALS)
    if worded and (refused or silent):
        why = refused or "the chat template leaves system messages out"
        yield f"{' and '.join(worded)} put dials into a system message: {why}; do without, or give another base model"


def _refused(tokenizer: Any, messages: Messages) -> str | None:
    try:
        prompt_text(tokenizer, messages, DIALS)
    except TemplateRefuses as exc:
        return str(exc)
    return None


def _room(config: RunConfig, materials: Materials, stages: tuple[StageName, ...]) -> Iterator[str]:
    """Prompts that the chat template refuses, and such as leave no room for an answer under the longest words."""
    tokenizer, room = materials.tokenizer, Room.of(materials.base_config)
    words = default_wordings()
    dials = max(grid(LEVELS), key=lambda each: len(tokenizer(words.render(each))["input_ids"]))
    mode = "prompt" if config.generate.worded else "off"
    asked = _in_modes((mode,), materials.training_prompts, dials)
    yield from _refused_prompts("to train on", asked, tokenizer, room, config.generate.sampling.max_new_tokens)
    if "fit" in stages and config.reinforce:
        asked = _in_modes(("adapter",), materials.training_prompts, DIALS)
        yield from _refused_prompts("learnt by reinforce", asked, tokenizer, room, config.reinforce.max_new_tokens)
    if "evaluate" in stages:
        held_out = {**materials.evaluation_prompts, **materials.calibration_prompts}
        asked = _in_modes(config.evaluate.modes, held_out, dials)
        yield from _refused_prompts("held out", asked, tokenizer, room, config.evaluate.sampling.max_new_tokens)


def _in_modes(modes: Sequence[str], prompts: Mapping[str, Prompt], dials: Dials) -> Iterator[Request]:
    for prompt in prompts.values():
        for mode in modes:
            yield in_mode(mode, Request(prompt.id, prompt.messages, dials))


def _refused_prompts(
    which: str, asked: Iterable[Request], tokenizer: Any, room: Room, new_tokens: int
) -> Iterator[str]:
    ids: list[str] = []
    texts: list[str] = []
    for request in asked:
        try:
            texts.append(prompt_text(tokenizer, request.messages, request.written_dials))
        except TemplateRefuses as exc:
            yield f"prompt {request.id!r} of those {which}: {exc}"
            return
        ids.append(request.id)
    lengths: dict[str, int] = {}
    for id, read in zip(ids, token_ids(tokenizer, texts), strict=True):
        lengths[id] = max(len(read), lengths.get(id, 0))
    yield from (f"{which}: {told}" for told in raised(partial(room.check, lengths, new_tokens)))
