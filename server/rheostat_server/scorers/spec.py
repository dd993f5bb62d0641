"""What an operator writes of the scorers: one YAML file, checked whole before anything is loaded.

```yaml
scorers:
  - {kind: classifier, dial: safety, model: /models/safety-reward}
  - {kind: classifier, dial: helpfulness, model: /models/helpful-reward, weight: 2}
```
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.engines.remote import Upstream
from rheostat_server.errors import CannotStart
from rheostat_server.scorers.batching import Limits
from rheostat_server.scorers.yes_no import WORDINGS, Question, Questions


class ScorersError(CannotStart):
    """The scorers' file cannot be read or does not fit; the message says where and why."""


class CommonSpec(BaseModel):
    """What every scorer may be told. A `name` left out is made of the model's.

    `weight` is its share where several scorers judge one dial: a level is their weighted mean.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._+/@-]{0,63}$")
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    max_batch: int = Field(default=64, ge=1)
    max_queue: int = Field(default=1024, ge=1)
    deadline: float = Field(default=10.0, gt=0, allow_inf_nan=False, description="Seconds.")

    @property
    def limits(self) -> Limits:
        return Limits(batch=self.max_batch, queue=self.max_queue, deadline=self.deadline)


class AskedSpec(CommonSpec):
    """A judge that is asked questions of yes or no.

    `wording` is the version of our questions; one of `questions` is asked in the place of ours. `limit_field` is the
    name that the server has for the most tokens of an answer, and `chat_template_kwargs` go to its chat template.
    """

    dials: list[DialName] = Field(default=list(DIAL_NAMES), min_length=1)
    wording: str = "rheostat-1"
    questions: dict[DialName, Question] = Field(default_factory=dict)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @field_validator("wording")
    @classmethod
    def _is_known(cls, wording: str) -> str:
        if wording not in WORDINGS:
            raise ValueError(f"there is no wording {wording!r}; known wordings: {', '.join(WORDINGS)}")
        return wording

    @model_validator(mode="after")
    def _questions_are_asked(self) -> "AskedSpec":
        if unasked := sorted(self.questions.keys() - set(self.dials)):
            raise ValueError(f"questions holds {unasked[0]}, which dials does not; add it there, or leave it out here")
        return self

    @property
    def judged(self) -> tuple[DialName, ...]:
        return tuple(dict.fromkeys(self.dials))

    @property
    def asked(self) -> Questions:
        """The question of each dial that is judged."""
        return {dial: self.questions.get(dial) or WORDINGS[self.wording][dial] for dial in self.judged}

    @property
    def options(self) -> dict[str, Any]:
        """What a request says besides model, messages and log-probabilities."""
        told: dict[str, Any] = {self.limit_field: 1}
        return {**told, "chat_template_kwargs": self.chat_template_kwargs} if self.chat_template_kwargs else told


class LabelReadSpec(AskedSpec):
    """The serving model asked about its own answers; `max_batch` requests run at once."""

    kind: Literal["label_read"]


class LinearScale(BaseModel):
    """Scores to levels: `low` is level 0, `high` is level 1, beyond them a level stays 0 or 1.

    `low` above `high` turns a scale around.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_width(self) -> "LinearScale":
        if self.low == self.high:
            raise ValueError(f"low and high are both {self.low:g}; they must differ")
        return self


Scale = Literal["probability"] | LinearScale


class RemoteSpec(CommonSpec):
    """A judge on another server: what its three APIs have in common.

    `url` is the server's base URL with or without `/v1`, `key_env` the name of the environment variable that holds its
    key. `connections` requests run at once.
    """

    kind: Literal["remote"]
    url: str
    model: str = Field(min_length=1)
    key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    connections: int = Field(default=16, ge=1)

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        try:
            Upstream(url)
        except CannotStart:
            raise ValueError(
                "url must be like http://127.0.0.1:8001/v1, without a password, a query or a fragment; the key is "
                "named by key_env"
            ) from None
        return url


class PooledSpec(RemoteSpec):
    """A model that vLLM serves with `--runner pooling`.

    `activation` false asks for raw scores, true for probabilities; left out, the server does as it does by default.
    `truncate` is the side on which a text that is too long is cut; left out, such a dialogue cannot be judged.
    """

    scale: Scale = "probability"
    activation: bool | None = None
    truncate: Literal["left", "right"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What a request says besides the texts."""
        told: dict[str, Any] = {"model": self.model}
        if self.activation is not None:
            told["use_activation"] = self.activation
        if self.truncate is not None:
            told |= {"truncate_prompt_tokens": -1, "truncation_side": self.truncate}
        return told


class RemoteClassifySpec(PooledSpec):
    """`POST /classify`: a level for each dial of `labels` is the score of that class, by its place or its name.

    Names need `classes`, the model's classes in their order, and then each answer is checked against them. `reads`
    tells what the model is given: the conversation with the answer, by its own chat template, or the answer alone.
    """

    api: Literal["classify"]
    labels: dict[DialName, Annotated[int, Field(ge=0)] | str] = Field(min_length=1)
    classes: list[str] | None = Field(default=None, min_length=1)
    reads: Literal["messages", "answer"] = "messages"

    @model_validator(mode="after")
    def _labels_are_classes(self) -> "RemoteClassifySpec":
        for dial, label in self.labels.items():
            if isinstance(label, str) and label not in (self.classes or []):
                raise ValueError(f"labels.{dial} is {label!r}, which is not in classes; list the model's classes there")
            if isinstance(label, int) and self.classes and label >= len(self.classes):
                raise ValueError(f"labels.{dial} is {label}; classes holds {len(self.classes)}, counted from 0")
        return self

    @property
    def places(self) -> dict[DialName, int]:
        """The place of each dial's class."""
        names = self.classes or []
        return {dial: names.index(label) if isinstance(label, str) else label for dial, label in self.labels.items()}

    @property
    def judged(self) -> tuple[DialName, ...]:
        return tuple(dial for dial in DIAL_NAMES if dial in self.labels)


class RemoteScoreSpec(PooledSpec):
    """`POST /score`: the last question and the answer as a pair of texts, `max_batch` pairs in a request."""

    api: Literal["score"]
    dial: DialName

    @property
    def judged(self) -> tuple[DialName, ...]:
        return (self.dial,)


class RemoteChatSpec(RemoteSpec, AskedSpec):
    """`POST /chat/completions` of any OpenAI-compatible server that tells log-probabilities."""

    api: Literal["chat"]


AnyRemoteSpec = Annotated[RemoteClassifySpec | RemoteScoreSpec | RemoteChatSpec, Field(discriminator="api")]
