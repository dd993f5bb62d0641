"""What every scorer may be told."""

import re
from pathlib import PurePath
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from rheostat_server.errors import CannotStart
from rheostat_server.scorers.batching import Limits

DEVICE: Final = r"^(cpu|cuda(:\d+)?)$"
LONGEST_NAME: Final = 64
LEAST_MASS: Final = 0.1
"""The least probability of all its words together with which a judge that generates keeps to its form."""


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


class ModelSpec(CommonSpec):
    """A model in this process: a folder, or a name on a hub. It judges in batches of `batch_rows` of like length.

    `threads` are the processor threads that it may use; left out, PyTorch's choice. Where an engine computes on the
    same processor, one is often the fastest for a small model.
    """

    model: str = Field(min_length=1)
    revision: str | None = None
    device: str = Field(default="cpu", pattern=DEVICE)
    batch_rows: int = Field(default=32, ge=1)
    threads: int | None = Field(default=None, ge=1)

    @property
    def title(self) -> str:
        """The name that the scorer goes by."""
        return self.name or name_of_model(self.model)


def name_of_model(model: str) -> str:
    """The last two parts of a folder or of a hub's name, written as a scorer's name may be."""
    written = re.sub(r"[^A-Za-z0-9 ._+@/-]", "-", "/".join(PurePath(model).parts[-2:]))
    return written[-LONGEST_NAME:].lstrip(" ._+@/-") or "scorer"
