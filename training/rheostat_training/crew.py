"""The processes of one launch: the first makes every stage, the others wait until it calls them to the fit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Literal

from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list

from rheostat_training.processes import check_launch, is_sharded

Order = Literal["fit", "end"]
PATIENCE: Final = timedelta(days=30)
"""How long the others wait for the first, which samples and scores before it calls them."""


class Crew:
    """One process, or as many as `accelerate launch` started.

    Raises:
        ValueError: see `check_launch`.
    """

    def __init__(self) -> None:
        check_launch()
        self.many = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self._accelerator = (
            Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]) if self.many else None
        )
        self._together = False

    @property
    def first(self) -> bool:
        return self._accelerator is None or bool(self._accelerator.is_main_process)

    @property
    def sharded(self) -> bool:
        """Whether the processes are to hold the model together, none of them the whole of it."""
        return self._accelerator is not None and is_sharded(self._accelerator)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """What the first process does; afterwards the others are let go, however it ends.

        Not so where it fails in the fit: the others are in it and hear nothing, and the launcher ends them.
        """
        try:
            yield
        finally:
            if not self._together:
                self._tell("end")

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """The fit, to which the first process calls the others."""
        self._tell("fit")
        self._together = True
        yield
        self._together = False

    def _tell(self, order: Order) -> None:
        """From the first process to all others."""
        if self.many:
            broadcast_object_list([order])

    def hear(self) -> Order:
        """The next order of the first process."""
        heard: list[Order] = ["end"]
        broadcast_object_list(heard)
        return heard[0]
