"""What several stages of a run need, each found or loaded when the first of them asks for it."""

import gc
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoTokenizer
from typing_extensions import TypedDict

from rheostat_server.contract.digest import base_model_digest, folder_digest
from rheostat_training.config import DEMO, BadConfig, BaseModel, JudgeSource, RunConfig
from rheostat_training.models import LoadedModel, load_base
from rheostat_training.prompts import PromptSource, PromptsRead, read_prompts, shuffled, split_prompts, without
from rheostat_training.rows import Prompt
from rheostat_training.sources import SCORERS, NamedJudge, is_here, judge_of, model_folder
from rheostat_training.stage import Say

BAD_TOLD: Final = 50
SETTINGS_FILES: Final = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")


class Loading(TypedDict):
    """What `models.load_base` and `models.load_with_adapter` both take."""

    dtype: torch.dtype
    device: str
    trust_remote_code: bool


def loading(base: BaseModel, *, sharded: bool = False) -> Loading:
    """Type, device and trust with which a base model is loaded, alone or with an adapter.

    Raises:
        BadConfig: a GPU is asked for and there is none.
    """
    if base.device == "cuda" and not torch.cuda.is_available():
        raise BadConfig("base.device is 'cuda', and torch sees no GPU here; give 'cpu' or 'auto'")
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = "cpu" if sharded else found if base.device == "auto" else base.device
    wide = base.dtype == "float32" or (base.dtype == "auto" and device == "cpu")
    dtype = torch.float32 if wide else torch.bfloat16
    return {"dtype": dtype, "device": device, "trust_remote_code": base.trust_remote_code}


@dataclass
class Materials:
    """The base model, prompts and judges of a configuration.

    A base model that is to be `sharded` is loaded on the CPU, since no one GPU may hold it.
    """

    config: RunConfig
    say: Say
    sharded: bool = False
    _judges: dict[str, NamedJudge] = field(default_factory=dict)

    @cached_property
    def base_folder(self) -> Path:
        base = self.config.base
        if base.revision and (base.model == DEMO or is_here(base.model)):
            raise BadConfig(f"base.revision is {base.revision!r}, and {base.model} is here, with no other revision")
        return model_folder(base.model, base.revision, code=base.trust_remote_code)

    @cached_property
    def base_digest(self) -> str:
        try:
            return base_model_digest(self.base_folder)
        except FileNotFoundError as exc:
            raise BadConfig(f"base.model is {self.config.base.model!r}: {exc}") from exc

    @cached_property
    def base_settings(self) -> str:
        """A digest of how the base model is asked, which that of its weights leaves out: chat template, end tokens."""
        return folder_digest(self.base_folder, SETTINGS_FILES)

    @cached_property
    def base(self) -> LoadedModel:
        return load_base(self.base_folder, **self.loading)

    @cached_property
    def base_to_fit(self) -> LoadedModel:
        """The same, in four bits where that is asked for."""
        if self.config.base.quantize == "none":
            return self.base
        return load_base(self.base_folder, quantize=self.config.base.quantize, **self.loading)

    @cached_property
    def base_config(self) -> Any:
        """The base model's own configuration."""
        return AutoConfig.from_pretrained(self.base_folder, trust_remote_code=self.config.base.trust_remote_code)

    @cached_property
    def tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self.base_folder, trust_remote_code=self.config.base.trust_remote_code)

    def release(self) -> None:
        """Lets go of the base model, in one form and the other; who asks again loads it again."""
        for name in ("base", "base_to_fit"):
            self.__dict__.pop(name, None)
        gc.collect()
        torch.cuda.empty_cache()

    @property
    def loading(self) -> Loading:
        """See `loading`."""
        return loading(self.config.base, sharded=self.sharded)

    @property
    def base_name(self) -> str:
        """What the adapter calls its base model; of a folder its last name, since the rest is of this machine."""
        model = self.config.base.model
        here = model != DEMO and is_here(model)
        return self.config.export.base_name or (self.base_folder.resolve().name if here else model)

    @cached_property
    def prompts_read(self) -> PromptsRead:
        return self._read(self.config.prompts.source)

    @property
    def training_prompts(self) -> dict[str, Prompt]:
        return self._split[0]

    @cached_property
    def evaluation_prompts(self) -> dict[str, Prompt]:
        return dict(list(self._split[1].items())[: self.config.evaluate.prompts])

    @cached_property
    def calibration_prompts(self) -> dict[str, Prompt]:
        """Others than those of the evaluation, by which the calibration is checked."""
        first = self.config.evaluate.prompts
        return dict(list(self._split[1].items())[first : first + self.config.calibrate.prompts])

    @property
    def scorers(self) -> NamedJudge:
        """The pair that labels the answers."""
        return self._judge(SCORERS)

    @property
    def judges(self) -> dict[str, NamedJudge]:
        """The scorers, and the judges that they are checked by."""
        return {name: self._judge(name) for name in (SCORERS, *self.config.evaluate.judges)}

    @cached_property
    def _split(self) -> tuple[dict[str, Prompt], dict[str, Prompt]]:
        """Prompts to train on, and prompts held out, in an order that mixes what a file may have sorted.

        The demo world mixes its own.

        Raises:
            BadConfig: fewer are held out than evaluation and calibration ask for, or all are.
        """
        asked, seed = self.config.prompts.held_out, self.config.seed
        if isinstance(asked, PromptSource):
            found = self._read(asked, told="held out: ")
            train, apart = without(self.prompts_read.prompts, found.prompts), found.prompts
            source, seed = asked, asked.seed
        else:
            train, apart = split_prompts(self.prompts_read.prompts, asked, seed)
            source = self.config.prompts.source
        if not train:
            raise BadConfig(
                f"prompts.held_out holds all {len(self.prompts_read.prompts)} prompts of prompts.source, so that none "
                "is left to train on; give another source, or a share"
            )
        apart = apart if source.source == DEMO else shuffled(apart, seed)
        needed = self.config.evaluate.prompts + self.config.calibrate.prompts
        if len(apart) < needed:
            more = f", such as {{source: demo, split: held-out, count: {needed}}}" if source.source == DEMO else ""
            raise BadConfig(
                f"prompts.held_out gives {len(apart)} prompts; evaluate.prompts ({self.config.evaluate.prompts}) and "
                f"calibrate.prompts ({self.config.calibrate.prompts}) need {needed}: ask for fewer, or hold out "
                f"more{more}"
            )
        return train, apart

    def _read(self, source: PromptSource, *, told: str = "") -> PromptsRead:
        """Reads prompts and says how many, and which rows were bad."""
        found = read_prompts(source)
        self.say(f"{told}{found.summary()}")
        for bad in found.bad[:BAD_TOLD]:
            self.say(f"  left out: {bad}")
        if len(found.bad) > BAD_TOLD:
            self.say(f"  left out: {len(found.bad) - BAD_TOLD:,} bad rows more")
        return found

    def _judge(self, name: str) -> NamedJudge:
        if name not in self._judges:
            sources: dict[str, JudgeSource] = {SCORERS: self.config.score.scorers, **self.config.evaluate.judges}
            self._judges[name] = judge_of(
                sources[name], batch_rows=self.config.score.batch_rows, device=self.loading["device"]
            )
        return self._judges[name]
