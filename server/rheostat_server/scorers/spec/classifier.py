"""The spec of a sequence-classification model: which outputs judge which dial, and on which scale."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from rheostat_server.contract.dials import DialName
from rheostat_server.scorers import Reads
from rheostat_server.scorers.presets import PRESETS
from rheostat_server.scorers.scales import Empirical, Head, Label, Linear, Logistic, Named
from rheostat_server.scorers.spec.common import ModelSpec


def _labels(value: object) -> object:
    """One label or several as a tuple."""
    many = value if isinstance(value, list | tuple) else [value]
    if not many or not all(_is_label(one) for one in many):
        raise ValueError("an output is named by its index or its name, in quotes where YAML reads yes, no or a number")
    return tuple(many)


def _is_label(value: object) -> bool:
    return (isinstance(value, str) and bool(value)) or (type(value) is int and value >= 0)


def _scale_tag(value: object) -> str | None:
    if isinstance(value, str):
        return NAMED if value in get_args(Named) else None
    if isinstance(value, BaseModel):
        return _scale_tag(value.model_dump())
    fields = value if isinstance(value, dict) else {}
    return next((tag for tag in (LINEAR, LOGISTIC, EMPIRICAL) if any(str(field) in tag for field in fields)), None)


NAMED, LINEAR, LOGISTIC, EMPIRICAL = SCALE_TAGS = ("sigmoid, softmax", "{low, high}", "{mean, spread}", "{quantiles}")
Labels = Annotated[tuple[Label, ...], BeforeValidator(_labels)]
ScaleSpec = Annotated[
    Annotated[Named, Tag(NAMED)]
    | Annotated[Linear, Tag(LINEAR)]
    | Annotated[Logistic, Tag(LOGISTIC)]
    | Annotated[Empirical, Tag(EMPIRICAL)],
    Discriminator(
        _scale_tag, custom_error_type="scale", custom_error_message=f"a scale is one of {', '.join(SCALE_TAGS)}"
    ),
]


class HeadSpec(BaseModel):
    """Which outputs judge a dial; what is left out of scale and invert is the scorer's. A label alone will do."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    label: Labels
    scale: ScaleSpec | None = None
    invert: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _label_alone(cls, given: Any) -> Any:
        return given if isinstance(given, dict | HeadSpec) else {"label": given}


class ClassifierSpec(ModelSpec):
    """A sequence-classification model of transformers: for one `dial`, or for both by its `heads`.

    `label` names the output that is read (several with softmax, which adds them up); `scale` is how raw outputs become
    levels; `invert` says that a higher score is worse. `reads` left out is the chat template where the tokenizer has
    one, else question and answer as a pair. `dtype` auto is that of the stored weights.
    """

    kind: Literal["classifier"]
    preset: str | None = None
    dial: DialName | None = None
    heads: dict[DialName, HeadSpec] | None = None
    label: Labels = ()
    scale: ScaleSpec | None = None
    invert: bool = False
    reads: Reads | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_tokens: int | None = Field(default=None, ge=16)
    cut_answers: bool = Field(default=False, description="Judge a part of an answer that does not fit whole.")
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, given: Any) -> Any:
        return _with_preset(given) if isinstance(given, dict) and given.get("preset") is not None else given

    @model_validator(mode="after")
    def _one_dial_or_heads(self) -> "ClassifierSpec":
        if (self.dial is None) == (self.heads is None):
            raise ValueError("give dial, safety or helpfulness, for a model of one dial, or heads for one of both")
        if self.heads is None:
            return self
        if len(self.heads) < 2:
            named = ", ".join(self.heads) or "no dial"
            raise ValueError(f"heads name {named}; name both dials, or give dial and label")
        if self.label:
            raise ValueError(f"label is {self.label[0]!r} beside heads; give each head its own label")
        return self

    @property
    def judged(self) -> dict[DialName, Head]:
        """The head of each dial."""
        if self.dial:
            return {self.dial: Head(self.label, self.scale, self.invert)}
        return {dial: self._head(head) for dial, head in (self.heads or {}).items()}

    def _head(self, head: HeadSpec) -> Head:
        return Head(head.label, head.scale or self.scale, self.invert if head.invert is None else head.invert)


def _with_preset(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a preset, and over them those given; its revision belongs to its own model alone."""
    name = given["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset is {name!r}; known presets: {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if missing := [field for field in preset.open if field not in given]:
        raise ValueError(f"preset {name} leaves {', '.join(missing)} to be given: {preset.note}")
    known = {field: value for field, value in preset.settings.items() if field != "revision" or "model" not in given}
    return {**known, **given}
