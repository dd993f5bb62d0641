"""What a configuration names: base models, scorers, judges and samplers, found and loaded."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from rheostat_server import demo
from rheostat_server.contract.digest import base_model_digest
from rheostat_training.config import DEMO, BadConfig, BaseModel, Generate, JudgeSource, ScorerFolders
from rheostat_training.generate import Sampler
from rheostat_training.models import LoadedModel
from rheostat_training.samplers.local import LocalSampler
from rheostat_training.samplers.offline import VllmSampler
from rheostat_training.samplers.server import ServerSampler
from rheostat_training.score import CallableJudge, Judge, ScorerPair
from rheostat_training.stage import tree_digest

SCORERS: Final = "scorers"
ORACLE: Final = "the demo world's oracle"
MODEL_FILES: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
SAME_AGAIN: Final = ("consolidated*", "original/*")
"""The same weights once more, in their makers' own layout."""


@dataclass(frozen=True)
class NamedJudge:
    """A digest of what a judge judges by, and the judge, which is loaded when it is first asked for."""

    load: Callable[[], Judge]
    digest: str

    @cached_property
    def judge(self) -> Judge:
        return self.load()


def is_here(name: str) -> bool:
    """Whether a model's name is that of a folder of this machine."""
    return Path(name).expanduser().is_dir()


def model_folder(name: str, revision: str | None = None, *, code: bool = False) -> Path:
    """The folder of a model: `demo`, a folder, or a name on a hub, whose safetensors are fetched, and `code` if asked.

    Raises:
        BadConfig: there is no such folder, and no hub has the name or none can be reached.
    """
    if name == DEMO:
        return demo.base_folder()
    if is_here(name):
        return Path(name).expanduser()
    try:
        wanted = [*MODEL_FILES, *(["*.py"] if code else [])]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=list(SAME_AGAIN)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as exc:
        raise BadConfig(f"model {name!r} is no folder, and cannot be fetched from a hub: {exc}") from exc


def judge_of(source: JudgeSource, *, batch_rows: int = 128, device: str = "cpu") -> NamedJudge:
    """The judge that a configuration names, not loaded yet; scorers are put on `device`."""
    if isinstance(source, ScorerFolders):
        folders = model_folder(source.safety), model_folder(source.helpfulness)
    elif source == "demo-oracle":
        from rheostat_training.demo import oracle

        return NamedJudge(lambda: CallableJudge(oracle.levels), ORACLE)
    else:
        pair = demo.bundle_folder() / source.removeprefix("demo-")
        folders = pair / "safety", pair / "helpfulness"
    digest = " ".join(tree_digest(folder) for folder in folders)
    return NamedJudge(lambda: ScorerPair.load(*folders, batch_rows=batch_rows, device=device), digest)


def sampler_of(plan: Generate, base: BaseModel, load: Callable[[], LoadedModel]) -> Sampler:
    """The sampler that a configuration names; the base model is loaded only where it is to sample.

    Raises:
        BadConfig: vLLM is not installed, or the server's key is to come from an environment variable that is not set.
    """
    if plan.engine == "vllm":
        if find_spec("vllm") is None:
            raise BadConfig("generate.engine is 'vllm', which is not installed: pip install '.[vllm]' in the checkout")
        folder = model_folder(base.model, base.revision)
        more = {"dtype": base.dtype, "trust_remote_code": base.trust_remote_code, **plan.vllm}
        return VllmSampler.load(folder, base_model_digest(folder), **more)
    if plan.engine == "server":
        return ServerSampler(
            plan.url or "", plan.served_model or "", logprobs=plan.logprobs, key=_key(plan.key_variable)
        )
    return LocalSampler(load())


def _key(variable: str | None) -> str | None:
    """The key in an environment variable, which no message holds."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BadConfig(f"generate.key_variable is {variable!r}; no environment variable of that name is set")
    if not (key.isascii() and key.isprintable()):
        raise BadConfig(
            f"generate.key_variable is {variable!r}, which holds what no key does; keys are printable ASCII"
        )
    return key
