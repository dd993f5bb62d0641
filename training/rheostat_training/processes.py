"""The processes that share a fit: one, or as many as `accelerate launch` starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor

PRECISION: Final = "ACCELERATE_MIXED_PRECISION"
ACCUMULATION: Final = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


def check_launch() -> None:
    """Checks that the launch leaves the arithmetic to the plan.

    Raises:
        ValueError: it asks for mixed precision, or for gradients gathered over several steps.
    """
    precision, gathered = os.environ.get(PRECISION, "no"), os.environ.get(ACCUMULATION, "1")
    if precision != "no":
        raise ValueError(
            f"{PRECISION} is {precision!r}; launch with --mixed_precision no: fit.dtype says what is taken in bfloat16"
        )
    if gathered != "1":
        raise ValueError(
            f"{ACCUMULATION} is {gathered!r}; launch with --gradient_accumulation_steps 1: fit.micro_batch_rows says "
            "how many rows a forward takes"
        )


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether a launch shards the model; on CPUs accelerate never does."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


@dataclass(frozen=True, slots=True)
class Processes:
    """What one process knows of the others. With one process nothing here changes a number."""

    accelerator: Accelerator

    @classmethod
    def open(cls, device: torch.device) -> "Processes":
        """The processes of this launch. A single one stays on the device where the model is.

        Raises:
            ValueError: see `check_launch`.
        """
        check_launch()
        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        return cls(
            Accelerator(
                cpu=alone and device.type == "cpu",
                device_placement=not alone,
                kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
            )
        )

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def number(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes files and says how far it is."""
        return bool(self.accelerator.is_main_process)

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model, so that each forward is a common one."""
        return is_sharded(self.accelerator)

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        with self.accelerator.main_process_first():
            yield

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def share(self, model: Any, optimiser: torch.optim.Optimizer) -> tuple[Any, Any]:
        """Model and optimiser as these processes share them: as they are, with gradients averaged, or sharded."""
        if self.count == 1:
            return model, optimiser
        shared: tuple[Any, Any] = self.accelerator.prepare(model, optimiser)
        return shared

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of the sum of all processes' losses; the wrappers average them, hence the factor."""
        self.accelerator.backward(loss * self.count)

    @contextmanager
    def exchanging(self, model: Any, *, now: bool) -> Iterator[None]:
        """Gradients of what runs inside are exchanged, or kept for the exchange of a later part."""
        if now:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def total(self, values: Tensor) -> list[float]:
        """The sum of each number over all processes."""
        reached: Any = self.accelerator.reduce(values, reduction="sum")
        return [float(value) for value in reached.tolist()]
