"""What an operator writes of the scorers: one YAML file, checked whole before anything is loaded.

```yaml
scorers:
  - {kind: classifier, dial: safety, model: /models/safety-reward}
  - {kind: classifier, dial: helpfulness, model: /models/helpful-reward, weight: 2}
shrink:
  safety: {reliability: 0.9, mean: 0.7}
early_stop:
  - {at: 0.25, keep: 0.5}
```
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rheostat_server.contract.dials import DialName
from rheostat_server.scorers.spec.asked import LabelReadSpec
from rheostat_server.scorers.spec.classifier import ClassifierSpec
from rheostat_server.scorers.spec.guard import GuardSpec
from rheostat_server.scorers.spec.remote import AnyRemoteSpec
from rheostat_server.scorers.spec.text import PreferenceSpec, RefusalSpec

ScorerSpec = Annotated[
    ClassifierSpec | GuardSpec | LabelReadSpec | AnyRemoteSpec | RefusalSpec | PreferenceSpec,
    Field(discriminator="kind"),
]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ShrinkSpec(_Part):
    """How far a dial's scores are believed; see `panel.Shrinkage`."""

    reliability: Share
    mean: Share


class CheckSpec(_Part):
    """When partial answers are judged, and how many go on; see `modes.reranking.Check`."""

    at: float
    keep: float


class ScorersFile(_Part):
    """The scorers of a server, and how it reranks by them: `early_stop` is a schedule's name, or its checks."""

    scorers: list[ScorerSpec] = Field(min_length=1)
    shrink: dict[DialName, ShrinkSpec] = Field(default_factory=dict)
    early_stop: Literal["plain", "halving"] | list[CheckSpec] = "plain"
