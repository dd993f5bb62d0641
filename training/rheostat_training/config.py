"""A run's configuration: YAML in, one checked value out, every error told at once."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_type_hints

import httpx
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rheostat_server.contract.manifest import AdapterName
from rheostat_training.calibrate import CalibratePlan
from rheostat_training.distil import DistilPlan
from rheostat_training.evaluate import NAME
from rheostat_training.fit_plan import FitPlan
from rheostat_training.generate import SamplingPlan
from rheostat_training.limits import SEEDS, STRICT, a_seed, at_least, is_seed, refuse, where
from rheostat_training.losses import OF_PREFERENCES
from rheostat_training.modes import KNOWN, is_mode
from rheostat_training.prompts import PromptSource
from rheostat_training.reinforce import ReinforcePlan

DEMO: Final = "demo"
YAML_WORDS: Final = "YAML reads on, off, yes and no as true or false unless they stand in quotes"
Plan = TypeVar("Plan")
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]


class _Once(yaml.SafeLoader):
    """Refuses a key that stands twice in one section, of which YAML itself would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        "in a section", node.start_mark, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return node


class BadConfig(ValueError):
    """A configuration cannot be used; the message lists everything that is wrong with it."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model that the adapter is for: a folder, a name on a hub, or `demo`.

    "auto" is a GPU in bfloat16 where there is one, else the CPU in float32. `quantize` "nf4" loads it in four bits for
    the fit (QLoRA). Code of the model's own is run only with `trust_remote_code`.
    """

    __pydantic_config__ = STRICT

    model: str = DEMO
    revision: str | None = None
    device: Device = "auto"
    dtype: Dtype = "auto"
    quantize: Literal["none", "nf4"] = "none"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Prompts:
    """Where prompts come from, and which of them no training sees: a share of them, or a source of their own."""

    __pydantic_config__ = STRICT

    source: PromptSource = field(default_factory=lambda: PromptSource(DEMO))
    held_out: float | PromptSource = 0.1

    def __post_init__(self) -> None:
        share = self.held_out
        refuse(
            where(
                isinstance(share, float) and not 0 < share < 1,
                f"held_out is {share}; it must be a share above 0 and below 1, or a source",
            )
        )


@dataclass(frozen=True, slots=True)
class Generate:
    """What the model is asked, and which engine asks it.

    Besides `sampling.samples` answers to each prompt as it is, `worded` more are given under system messages that word
    levels drawn at random; they count as answers to the prompt alone. That is how corners are reached that the model
    avoids by itself. `vllm` are arguments of `vllm.LLM` besides the model; `base.dtype` is its type if they name none,
    and its device that of the build of vLLM. A server is asked at `url` for `served_model`, with the key that the
    environment variable `key_variable` holds, and tells how sure it was of an answer only with `logprobs`.
    """

    __pydantic_config__ = STRICT

    engine: Literal["transformers", "vllm", "server"] = "transformers"
    worded: int = 0
    sampling: SamplingPlan = field(default_factory=SamplingPlan)
    vllm: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None
    served_model: str | None = None
    key_variable: str | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        unknown = self.engine == "server" and not (self.url and self.served_model)
        refuse(
            at_least(self, 0, "worded"),
            where(unknown, "engine is 'server'; it needs url and served_model"),
            self._of_another_engine("server", "url", "served_model", "key_variable", "logprobs"),
            self._of_another_engine("vllm", "vllm"),
            where("model" in self.vllm, "vllm names model, which base.model is for"),
            () if self.url is None else _bad_url(self.url),
        )

    def _of_another_engine(self, engine: str, *names: str) -> Iterator[str]:
        for name in names:
            given = getattr(self, name) and self.engine != engine
            yield from where(given, f"{name} is given, and engine is {self.engine!r}; it is for {engine!r} alone")


def _bad_url(url: str) -> Iterator[str]:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as exc:
        yield f"url is no address: {exc}"
        return
    right = parsed.scheme in ("http", "https") and parsed.host
    yield from where(
        not right, "url must begin with http:// or https:// and name a host, such as http://127.0.0.1:8000"
    )


@dataclass(frozen=True, slots=True)
class ScorerFolders:
    """Two scorers, each a folder or a name on a hub."""

    __pydantic_config__ = STRICT

    safety: str
    helpfulness: str


JudgeName = Literal["demo-scorers", "demo-judges", "demo-oracle"]
JudgeSource = ScorerFolders | JudgeName
JudgeKey = Annotated[str, Field(pattern=f"^{NAME}$")]
"""What a judge is called, in figures and on pictures."""


@dataclass(frozen=True, slots=True)
class Score:
    """The scorers that label the answers."""

    __pydantic_config__ = STRICT

    scorers: JudgeSource = "demo-scorers"
    batch_rows: int = 128

    def __post_init__(self) -> None:
        refuse(at_least(self, 1, "batch_rows"))


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Modes side by side on a grid of dials, read by judges.

    The scorers that made the data are always among the judges, as "scorers" (optimisation evaluation); `judges` are
    those that they never saw (generalisation evaluation).
    """

    __pydantic_config__ = STRICT

    prompts: int = 300
    levels: tuple[float, ...] = (0.0, 0.5, 1.0)
    modes: tuple[str, ...] = ("adapter", "prompt", "off")
    judges: Mapping[JudgeKey, JudgeSource] = field(default_factory=dict)
    resamples: int = 1000
    sampling: SamplingPlan = field(default_factory=lambda: SamplingPlan(samples=1, temperature=0.7))

    def __post_init__(self) -> None:
        levels, modes = self.levels, self.modes
        few = len(levels) < 2 or len(set(levels)) < len(levels) or any(not 0 <= level <= 1 for level in levels)
        refuse(
            at_least(self, 2, "prompts"),
            at_least(self, 1, "resamples"),
            where(few, f"levels are {levels}; they must be two or more different ones from 0 to 1"),
            where("adapter" not in modes, f"modes are {modes}; 'adapter' must be among them"),
            where(len(set(modes)) < len(modes), f"modes are {modes}; each can be asked once"),
            (f"mode is {mode!r}; known modes: {KNOWN}" for mode in modes if not is_mode(mode)),
            where(
                self.sampling.samples != 1,
                f"sampling.samples is {self.sampling.samples}; every setting is asked once a prompt, rerank-N for N "
                "candidates: give more prompts",
            ),
            where("scorers" in self.judges, "a judge is named 'scorers', which are those that label the answers"),
        )


@dataclass(frozen=True, slots=True)
class Export:
    """What the adapter's card says of it; `merge` also writes the base model with the adapter in its weights."""

    __pydantic_config__ = STRICT

    licence: str = "Apache-2.0"
    base_name: str | None = None
    merge: bool = False


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that a run depends on.

    `seed` is that of every stage which names none of its own. `report_to` is a tracker of accelerate's, or "none".
    """

    __pydantic_config__ = STRICT

    name: AdapterName = "control"
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    base: BaseModel = field(default_factory=BaseModel)
    prompts: Prompts = field(default_factory=Prompts)
    generate: Generate = field(default_factory=Generate)
    score: Score = field(default_factory=Score)
    distil: DistilPlan = field(default_factory=DistilPlan)
    fit: FitPlan = field(default_factory=FitPlan)
    reinforce: ReinforcePlan | None = None
    evaluate: Evaluate = field(default_factory=Evaluate)
    calibrate: CalibratePlan = field(default_factory=CalibratePlan)
    export: Export = field(default_factory=Export)
    report_to: str = "tensorboard"

    def __post_init__(self) -> None:
        generate, rlhf = self.generate, self.reinforce
        unsure = self.distil.least_probability > 0 and generate.engine == "server" and not generate.logprobs
        refuse(
            (f"calibrate.{line}" for line in a_seed(self.calibrate)),
            where(
                unsure,
                f"distil.least_probability is {self.distil.least_probability}, and no probabilities are asked of the "
                "server; set generate.logprobs to true",
            ),
            (
                f"reinforce.{name} is {getattr(rlhf, name)}; RLHF goes on from the fitted adapter, whose fit.{name} is"
                for name in ("rank", "lora_alpha")
                if rlhf and getattr(rlhf, name) != getattr(ReinforcePlan(), name)
            ),
            where(
                self.fit.loss in OF_PREFERENCES or self.fit.masking.on,
                f"fit.loss is {self.fit.loss!r} and fit.masking.rule is {self.fit.masking.rule!r}; the losses "
                f"{', '.join(sorted(OF_PREFERENCES))} and masks are for `rheostat train equilibrate`, whose pairs have "
                "aims and rewards",
            ),
            where(
                rlhf is not None and rlhf.masking.on,
                f"reinforce.masking.rule is {rlhf.masking.rule if rlhf else None!r}; masks are for `rheostat train "
                "equilibrate`, whose runs have rewards of tokens",
            ),
        )


def read_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a YAML file, with `section.key=value` overrides, whose values are YAML too.

    Raises:
        BadConfig: the file cannot be read or does not fit; the message lists every error, and for an unknown key the
            nearest known one.
    """
    values = read_sections(path)
    for each in overrides:
        override(values, each)
    return parse_config(values, origin=str(path))


def parse_config(values: Mapping[str, Any], *, origin: str = "the configuration") -> RunConfig:
    """See `read_config`."""
    return parse(RunConfig, _over_defaults(values), origin=origin)


def read_sections(path: Path) -> dict[str, Any]:
    """The values in a YAML file, as they stand there.

    Raises:
        BadConfig: it cannot be read, holds no sections, or a key twice.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Once) or {}  # noqa: S506, a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise BadConfig(f"{path} cannot be read: {exc}") from exc
    if not isinstance(values, dict):
        raise BadConfig(f"{path} holds a {type(values).__name__}; it must hold sections")
    return values


def parse(kind: type[Plan], values: Mapping[str, Any], *, origin: str) -> Plan:
    """The values as a dataclass.

    Raises:
        BadConfig: they do not fit; the message lists every error, and for an unknown key the nearest known one.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as exc:
        errors = [error for error in exc.errors() if not _of_another_kind(error)]
        found = [line for error in errors for line in _told(error, kind)]
        raise BadConfig("\n".join([f"{origin} has {len(found)} error{'s' * (len(found) > 1)}:", *found])) from exc


def as_values(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as JSON values, which `parse_config` takes back."""
    values: dict[str, Any] = TypeAdapter(RunConfig).dump_python(config, mode="json")
    return values


def with_values(config: RunConfig, values: Mapping[str, Any], *, origin: str = "the configuration") -> RunConfig:
    """The same with some values changed, section by section; `origin` is what an error calls them."""
    return parse_config(over(as_values(config), values), origin=origin)


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """The same with another seed everywhere but in `evaluate`, which asks the same of all runs."""
    values = as_values(config)
    changed = seeded({name: value for name, value in values.items() if name != "evaluate"}, seed)
    return parse_config({**changed, "evaluate": values["evaluate"]})


def write_config(values: Mapping[str, Any], path: Path) -> Path:
    """Writes a resolved configuration, of which `as_values` gives the values, as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def override(values: dict[str, Any], said: str) -> None:
    """Puts one `section.key=value` into the values of a file.

    Raises:
        BadConfig: it is not of that form.
    """
    name, equals, text = said.partition("=")
    keys = name.split(".")
    if not equals or not all(keys):
        raise BadConfig(f"--set {said!r} is not of the form section.key=value")
    place = values
    for key in keys[:-1]:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise BadConfig(f"--set {said!r}: {key!r} is a value and no section")
    try:
        place[keys[-1]] = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise BadConfig(f"--set {said!r}: the value is not YAML: {exc}") from exc


def _over_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values over the defaults, section by section; every section that names no seed takes the run's."""
    seed = _seed(values)
    result = over(seeded(as_values(RunConfig()), seed), _spelt_out(values))
    prompts = result["prompts"] if isinstance(result["prompts"], dict) else {}
    for section, key in ((result, "reinforce"), (prompts, "held_out")):
        if isinstance(section.get(key), dict):
            section[key] = {"seed": seed, **section[key]}
    return result


def _seed(values: Mapping[str, Any]) -> int:
    """The run's seed as it is read from the file; 0 where it is none, which is told with everything else."""
    try:
        seed: int = TypeAdapter(int).validate_python(values.get("seed", 0))
    except ValidationError:
        return 0
    return seed if is_seed(seed) else 0


def _spelt_out(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`prompts.source: file.jsonl` is short for `{source: file.jsonl}`, and so with `held_out`."""
    prompts = values.get("prompts")
    if not isinstance(prompts, Mapping):
        return values
    short = {name: {"source": said} for name in ("source", "held_out") if isinstance(said := prompts.get(name), str)}
    return {**values, "prompts": {**prompts, **short}}


def seeded(values: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The values with one seed in every section that has any."""
    inner = {name: seeded(value, seed) if isinstance(value, dict) else value for name, value in values.items()}
    return {**inner, "seed": seed} if "seed" in inner else inner


def over(known: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values over known ones, section by section."""
    result = dict(known)
    for key, value in values.items():
        section = result.get(key)
        result[key] = over(section, value) if isinstance(section, dict) and isinstance(value, dict) else value
    return result


def _dataclass_in(hint: Any) -> type | None:
    """The section that a field's type is, or has as an option or as a value."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for option in get_args(hint) if (found := _dataclass_in(option))), None)


def _is_option(part: object) -> bool:
    """Whether a part of an error's place is none of the file's: it names one of the types that a value may have."""
    return part in ("float", PromptSource.__name__, ScorerFolders.__name__) or str(part).startswith("literal[")


def _of_another_kind(error: Any) -> bool:
    """Whether the value was not meant to be of the type that it is found wanting by: it is a section, or is none."""
    option = error["loc"][-1] if error["loc"] else ""
    section = option in (PromptSource.__name__, ScorerFolders.__name__)
    return _is_option(option) and section != isinstance(error["input"], Mapping)


def _told(error: Any, kind: type) -> Iterator[str]:
    """An error's lines."""
    place = ".".join(str(part) for part in error["loc"] if not _is_option(part)) or "the configuration"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        yield f"  {place}: unknown key{_nearest(error['loc'], kind)}"
    elif error["type"] == "value_error":
        yield from (f"  {place}: {line}" for line in str(error["ctx"]["error"]).splitlines())
    else:
        known = f"; {YAML_WORDS}" if isinstance(error["input"], bool) else ""
        yield f"  {place} is {error['input']!r}: {error['msg']}{known}"


def _nearest(loc: Sequence[Any], kind: type) -> str:
    """The known key of a dataclass most like the last of `loc`, and all known ones where none is."""
    for part in loc[:-1]:
        kind = _dataclass_in(get_type_hints(kind).get(str(part))) or kind
    known = [each.name for each in fields(kind)]
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
