"""Whether a run can come to its end, asked before it spends its hours."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from transformers import AutoConfig, AutoTokenizer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from rheostat_server.contract.dials import Dials
from rheostat_training.adapter_check import NotServable, check_architecture
from rheostat_training.conditioning import TemplateRefuses, prompt_text, token_ids
from rheostat_training.config import DEMO, BadConfig, JudgeSource, RunConfig, ScorerFolders
from rheostat_training.crew import Crew
from rheostat_training.materials import Materials
from rheostat_training.models import Room
from rheostat_training.rows import Messages, Prompt
from rheostat_training.sources import model_folder
from rheostat_training.stage_names import STAGES, StageName
from rheostat_training.tracking import NONE, check_tracker

SYSTEM: Final = "Answer in one sentence."
ASKED: Final = "What does this do?"
DIALS: Final = Dials(safety=0.25, helpfulness=0.75)


def check_run(config: RunConfig, materials: Materials, until: StageName) -> None:
    """Asks whatever is cheap to ask of tracker, scorers, judges, base model, tokenizer and held-out prompts.

    Raises:
        BadConfig: a stage up to `until` would fail; the message says everything that was found.
    """
    stages = STAGES[: STAGES.index(until) + 1]
    found = [*_tracker(config, stages), *_judges(config, materials, stages), *_base(config, materials, stages)]
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
    try:
        config.fit.check_sharded()
    except ValueError as exc:
        yield from (f"fit.{line}" for line in str(exc).splitlines())


def _tracker(config: RunConfig, stages: tuple[StageName, ...]) -> Iterator[str]:
    if "fit" not in stages:
        return
    try:
        check_tracker(config.report_to)
    except ValueError as exc:
        yield str(exc)
        return
    if config.reinforce and config.report_to not in (NONE, *INTEGRATION_TO_CALLBACK):
        known = ", ".join(sorted({NONE, *INTEGRATION_TO_CALLBACK} & {NONE, *LOGGER_TYPE_TO_CLASS}))
        yield f"report_to is {config.report_to!r}, to which no reinforce can report; it must be one of {known}"


def _judges(config: RunConfig, materials: Materials, stages: tuple[StageName, ...]) -> Iterator[str]:
    sources: dict[str, JudgeSource] = {"score.scorers": config.score.scorers} if "score" in stages else {}
    if "evaluate" in stages:
        sources |= {f"evaluate.judges.{name}": source for name, source in config.evaluate.judges.items()}
    if isinstance(config.score.scorers, str) and config.prompts.source.source != DEMO and "score" in stages:
        materials.say(f"score.scorers are {config.score.scorers}, which know the demo world alone; name your own")
    for name, source in sources.items():
        if isinstance(source, ScorerFolders):
            for folder in (source.safety, source.helpfulness):
                try:
                    model_folder(folder)
                except BadConfig as exc:
                    yield f"{name}: {exc}"


def _base(config: RunConfig, materials: Materials, stages: tuple[StageName, ...]) -> Iterator[str]:
    folder, trust = materials.base_folder, {"trust_remote_code": config.base.trust_remote_code}
    materials.check_base()
    settings = AutoConfig.from_pretrained(folder, **trust)
    for name in settings.architectures or () if "fit" in stages else ():
        yield from _architecture(name)
    tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
    if tokenizer.chat_template is None:
        yield f"base.model {config.base.model!r} has no chat template, and control text is the end of a user's turn"
        return
    yield from _template(config, tokenizer, stages)
    room = Room.of(settings)
    if "evaluate" in stages:
        held_out = {**materials.evaluation_prompts, **materials.calibration_prompts}
        yield from _rooms("held out", held_out, config.evaluate.sampling.max_new_tokens, tokenizer, room)
    if "fit" in stages and config.reinforce:
        yield from _one_gpu(materials)
        learnt_from = materials.training_prompts
        yield from _rooms("reinforce", learnt_from, config.reinforce.max_new_tokens, tokenizer, room)


def _architecture(name: str) -> Iterator[str]:
    try:
        check_architecture(name)
    except NotServable as exc:
        yield str(exc)


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


def _one_gpu(materials: Materials) -> Iterator[str]:
    count = torch.cuda.device_count()
    if materials.loading["device"] == "cuda" and count > 1:
        yield f"reinforce runs on one GPU, and torch sees {count}: set CUDA_VISIBLE_DEVICES to one of them"


def _rooms(told: str, prompts: Mapping[str, Prompt], new_tokens: int, tokenizer: Any, room: Room) -> Iterator[str]:
    """Whether the template takes each prompt, and the model an answer after it."""
    texts: dict[str, str] = {}
    for id, prompt in prompts.items():
        try:
            texts[id] = prompt_text(tokenizer, prompt.messages, DIALS)
        except TemplateRefuses as exc:
            yield f"{told}: prompt {id!r}: {exc}"
            return
    lengths = {id: len(ids) for id, ids in zip(texts, token_ids(tokenizer, [*texts.values()]), strict=True)}
    try:
        room.check(lengths, new_tokens)
    except ValueError as exc:
        yield f"{told}: {exc}"
