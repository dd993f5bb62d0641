"""What an operator writes of the scorers: one YAML file, checked whole before anything is loaded.

```yaml
scorers:
  - {kind: classifier, dial: safety, model: /models/safety-reward}
  - {kind: classifier, dial: helpfulness, model: /models/helpful-reward, weight: 2}
```
"""

from pydantic import BaseModel, ConfigDict, Field

from rheostat_server.errors import CannotStart
from rheostat_server.scorers.batching import Limits


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
