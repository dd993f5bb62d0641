"""What OpenAI's chat API tells of the tokens that a model wrote: their texts, and the likeliest ones at each place."""

from typing import Final

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

LISTED: Final = 20
"""Tokens whose log-probabilities are asked for: the most that OpenAI's API lists."""


class NotAnAnswer(ValueError):
    """What came back tells no level and does not say that it could not judge; the message quotes nothing of it."""


class Listed(BaseModel):
    token: str
    logprob: FiniteFloat = Field(le=1e-4)


class Written(BaseModel):
    """A token that a model wrote, and the likeliest tokens at its place."""

    token: str
    top_logprobs: list[Listed]

    @property
    def listed(self) -> list[tuple[str, float]]:
        """Texts and log-probabilities; a text stands twice where two tokens read alike."""
        return [(one.token, one.logprob) for one in self.top_logprobs]


_WRITTEN: Final = TypeAdapter(list[Written])


def written_by(completion: object) -> list[Written]:
    """The tokens of a chat completion; none where it ended before its first.

    Raises:
        NotAnAnswer: it is no completion with log-probabilities.
    """
    match completion:
        case {"choices": [{"logprobs": {"content": content}}, *_]}:
            pass
        case _:
            raise NotAnAnswer("its answer holds no log-probabilities; the model must be served by one that tells them")
    try:
        return _WRITTEN.validate_python(content)
    except ValidationError:
        raise NotAnAnswer("its answer's log-probabilities cannot be read") from None
