"""The specs of judges on other servers, one an API."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.engines.remote import Upstream
from rheostat_server.errors import CannotStart
from rheostat_server.scorers.scales import Linear
from rheostat_server.scorers.spec.asked import AskedSpec
from rheostat_server.scorers.spec.common import CommonSpec
from rheostat_server.scorers.spec.guard import GuardOptions

Scale = Literal["probability"] | Linear


class RemoteSpec(CommonSpec):
    """A judge on another server: what its four APIs have in common.

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

    `scale` is how scores become levels, `invert` says that a higher score is worse. `activation` false asks for raw
    scores, true for probabilities; left out, the server does as it does by default. `truncate` is the side on which a
    text that is too long is cut; left out, such a dialogue cannot be judged.
    """

    scale: Scale = "probability"
    invert: bool = False
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


class RemoteGuardSpec(RemoteSpec, GuardOptions):
    """`POST /chat/completions` of a guard that vLLM serves; its own chat template writes the prompt."""

    api: Literal["guard"]

    @property
    def judged(self) -> tuple[DialName, ...]:
        return ("safety",)


AnyRemoteSpec = Annotated[
    RemoteClassifySpec | RemoteScoreSpec | RemoteChatSpec | RemoteGuardSpec, Field(discriminator="api")
]
