"""What the commands name, found and loaded: a labeller of prompts, a blender, and the model that either asks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rheostat_training.config import BadConfig, BaseModel, Device, Generate, RunConfig
from rheostat_training.equilibrate.fdc.blend_prompts import BLEND_SAMPLING, Blender, LlmBlender
from rheostat_training.equilibrate.fdc.classifier import GroupClassifier
from rheostat_training.equilibrate.fdc.group import Group, Labeller
from rheostat_training.equilibrate.fdc.judge import JUDGE_SAMPLING, GroupJudge
from rheostat_training.equilibrate.fdc.labels import KnownGroups
from rheostat_training.equilibrate.fdc.options import BlendBy, By
from rheostat_training.generate import Sampler
from rheostat_training.materials import Materials
from rheostat_training.sources import ORACLE, sampler_of


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A language model that judges or blends: `model` in this process, by transformers or vLLM, or one of a server.

    `tries` is how often it is asked where its answer is not of the form that is asked for.
    """

    model: str | None = None
    vllm: bool = False
    url: str | None = None
    served_model: str | None = None
    key_variable: str | None = None
    device: Device = "auto"
    tries: int = 3
    max_new_tokens: int | None = None
    seed: int = 0

    def sampler(self) -> Sampler:
        """The sampler of the model.

        Raises:
            BadConfig: neither a model nor a server is named, or both are, or they cannot be found.
        """
        if (self.model is None) == (self.url is None):
            raise BadConfig("a judge or blender needs one model: give --model, or --url and --served-model")
        if self.url is None and (self.served_model or self.key_variable):
            raise BadConfig("--served-model and --key-variable are of a server; give its --url too")
        if self.url and self.vllm:
            raise BadConfig("--vllm runs a --model here, and --url names a server; give one of them")
        base = BaseModel(model=self.model, device=self.device) if self.model else BaseModel()
        asked = Generate(
            engine="server" if self.url else "vllm" if self.vllm else "transformers",
            url=self.url,
            served_model=self.served_model,
            key_variable=self.key_variable,
        )
        materials = Materials(RunConfig(base=base), say=lambda line: None)
        return sampler_of(asked, base, lambda: materials.base)

    def judge(self, sampler: Sampler) -> GroupJudge:
        return GroupJudge(sampler, replace(JUDGE_SAMPLING, seed=self.seed, **self._room()), self.tries)

    def blender(self, sampler: Sampler) -> LlmBlender:
        return LlmBlender(sampler, replace(BLEND_SAMPLING, seed=self.seed, **self._room()), self.tries)

    def _room(self) -> dict[str, int]:
        return {} if self.max_new_tokens is None else {"max_new_tokens": self.max_new_tokens}


def labeller_of(by: By, classifier: Path | None, asked: AskedModel, sampler: Callable[[], Sampler]) -> Labeller:
    """What tells the groups; `sampler` gives that of the model, where one is to judge.

    Raises:
        BadConfig: it needs a folder or a model that is not given.
        ValueError: the folder holds no classifier of ours.
    """
    if by is By.JUDGE:
        return asked.judge(sampler())
    if by is By.DEMO_ORACLE:
        return KnownGroups(_demo_group(), ORACLE)
    if classifier is None:
        raise BadConfig("--by classifier needs --classifier, a folder that `rheostat train groups fit` made")
    return GroupClassifier.load(classifier, device="cpu" if asked.device == "auto" else asked.device)


def blender_of(by: BlendBy, asked: AskedModel, sampler: Callable[[], Sampler]) -> Blender:
    """What blends prompts; `sampler` gives that of the model, where one is to blend."""
    if by is BlendBy.MODEL:
        return asked.blender(sampler())
    from rheostat_training.demo.blending import DemoBlender

    return DemoBlender()


def _demo_group() -> Callable[[str], Group | None]:
    from rheostat_training.demo.scenario import look_alikes, scenario_of

    def group(text: str) -> Group | None:
        scenario = scenario_of(text)
        if scenario is None:
            return None
        return Group.LOOK_ALIKE if scenario.prompt in look_alikes() else Group(scenario.group.value)

    return group
