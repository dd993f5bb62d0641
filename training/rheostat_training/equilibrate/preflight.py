"""Whether a run of a safety method can come to its end, asked before it samples and trains."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from transformers import AutoConfig

from rheostat_server.contract.digest import base_model_digest
from rheostat_server.contract.manifest import ManifestError, read_manifest
from rheostat_training.adapter_check import check_architecture
from rheostat_training.conditioning import CONTROL_TEXT
from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.answers import DEMO_ORACLE
from rheostat_training.equilibrate.config import EquilibrateConfig
from rheostat_training.materials import loading
from rheostat_training.preflight import one_gpu, raised
from rheostat_training.rows import Prompt
from rheostat_training.tracking import check_tracker


def check_equilibrate(config: EquilibrateConfig, base: Path, prompts: Sequence[Prompt]) -> None:
    """Asks whatever is cheap to ask of launch, tracker, base model, prompts and control adapter.

    Raises:
        BadConfig: a stage would fail; the message says everything that was found.
    """
    found = [
        *_of_launch(config),
        *raised(lambda: check_tracker(config.report_to)),
        *_of_base(config, base),
        *_of_prompts(config, prompts),
        *_of_control_adapter(config, base),
    ]
    if found:
        raise BadConfig("\n".join(found))


def _of_launch(config: EquilibrateConfig) -> Iterator[str]:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield "a safety method runs in one process: start it without accelerate launch"
    if config.method == "appo":
        yield from one_gpu(loading(config.base)["device"])


def _of_base(config: EquilibrateConfig, base: Path) -> Iterator[str]:
    settings = AutoConfig.from_pretrained(base, trust_remote_code=config.base.trust_remote_code)
    for name in settings.architectures or ():
        yield from raised(partial(check_architecture, name))


def _of_prompts(config: EquilibrateConfig, prompts: Sequence[Prompt]) -> Iterator[str]:
    """The demo's oracle can judge answers to prompts of its world alone."""
    if DEMO_ORACLE not in (config.judge.scorers, config.judge.refusals):
        return
    from rheostat_training.demo import oracle

    unknown = [prompt.id for prompt in prompts if oracle.risk_group(prompt.messages[-1]["content"]) is None]
    if unknown:
        yield (
            f"judge.scorers or judge.refusals is demo-oracle, which knows the demo world alone, and {len(unknown)} of "
            f"{len(prompts)} prompts are not of it, {unknown[0]!r} the first; give scorers of your own"
        )


def _of_control_adapter(config: EquilibrateConfig, base: Path) -> Iterator[str]:
    if not config.control_adapter:
        return
    try:
        manifest = read_manifest(Path(config.control_adapter).expanduser())
    except ManifestError as exc:
        yield f"control_adapter is {config.control_adapter!r}: {exc}"
        return
    wanted = base_model_digest(base)
    if manifest.base_model.digest != wanted:
        yield (
            f"control_adapter is {config.control_adapter!r}, trained on a base whose digest is "
            f"{manifest.base_model.digest}; that of base.model is {wanted}"
        )
    if config.under_control_text and manifest.control_text.template != CONTROL_TEXT.template:
        yield (
            f"control_adapter is {config.control_adapter!r}, whose control text is "
            f"{manifest.control_text.template!r}; that of this run is {CONTROL_TEXT.template!r}, and a blend has one"
        )
