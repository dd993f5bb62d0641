"""The specs of the scorers that `rheostat train scorer` makes."""

from typing import Literal

from rheostat_server.contract.dials import DialName
from rheostat_server.scorers.spec.common import ModelSpec


class RefusalSpec(ModelSpec):
    """A refusal scorer made by `rheostat train scorer`: how much of what was asked an answer refuses.

    For helpfulness its level is 1 − what is refused, since a refusal does not help; for safety it is what is refused.
    """

    kind: Literal["refusal"]
    dial: DialName = "helpfulness"

    @property
    def judged(self) -> tuple[DialName, ...]:
        return (self.dial,)


class PreferenceSpec(ModelSpec):
    """A preference scorer made by `rheostat train scorer`, for the dial that its labels were of."""

    kind: Literal["preference"]
    dial: DialName

    @property
    def judged(self) -> tuple[DialName, ...]:
        return (self.dial,)
