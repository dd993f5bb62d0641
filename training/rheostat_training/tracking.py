"""Where a fit reports its figures while it runs: TensorBoard, or another tracker that accelerate knows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

NONE: Final = "none"
FOLDER: Final = "tracking"
PROJECT: Final = "rheostat"


def check_tracker(name: str) -> None:
    """Checks that a tracker is known and installed, before a run begins.

    Raises:
        ValueError: it is not; the message says which are known, or what to install.
    """
    known = (NONE, *sorted(LOGGER_TYPE_TO_CLASS))
    if name not in known:
        raise ValueError(f"report_to is {name!r}; it must be one of {', '.join(known)}")
    if name != NONE and name not in {str(found) for found in get_available_trackers()}:
        raise ValueError(f"report_to is {name!r}, which is not installed; install it, or report to {NONE!r}")


@contextmanager
def tracker(name: str, folder: Path, facts: Mapping[str, Any], *, first_step: int) -> Iterator[GeneralTracker | None]:
    """A tracker in `folder/tracking`; what an earlier run reported of steps after `first_step` is dropped."""
    if name == NONE:
        yield None
        return
    kind = LOGGER_TYPE_TO_CLASS[name]
    place = (FOLDER, str(folder)) if kind.requires_logging_directory else (PROJECT,)
    opened = kind(*place, **({"purge_step": first_step + 1} if name == "tensorboard" else {}))
    opened.start()
    if first_step == 0:
        opened.store_init_configuration({name: _scalar(value) for name, value in facts.items()})
    try:
        yield opened
    finally:
        opened.finish()


def _scalar(value: object) -> bool | int | float | str:
    """What TensorBoard takes for a setting."""
    return value if isinstance(value, (bool, int, float, str)) else str(value)
