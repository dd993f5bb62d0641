"""The specs of judges that are asked yes or no: the serving model itself, and what others share with it."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rheostat_server.contract.dials import DIAL_NAMES, DialName
from rheostat_server.scorers.spec.common import LEAST_MASS, CommonSpec
from rheostat_server.scorers.yes_no import WORDINGS, Question, Questions


class AskedSpec(CommonSpec):
    """A judge that is asked questions of yes or no.

    `wording` is the version of our questions; one of `questions` is asked in the place of ours. `limit_field` is the
    name that the server has for the most tokens of an answer, and `chat_template_kwargs` go to its chat template.
    """

    dials: list[DialName] = Field(default=list(DIAL_NAMES), min_length=1)
    wording: str = "rheostat-1"
    questions: dict[DialName, Question] = Field(default_factory=dict)
    least_mass: float = Field(default=LEAST_MASS, gt=0, le=1, description="Less on all words together is no judgement.")
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
