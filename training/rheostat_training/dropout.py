"""Dropout of the base model's own, off for as long as two of its forwards are compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """No dropout within, and then as before: neither of modules nor by the chances that layers hand to functions.

    The model's mode stays what it is: recomputing activations needs the training mode, and on a CPU bitsandbytes
    repacks four-bit weights in eval mode, and no gradient passes them afterwards.
    """
    chances = [(module, name, value) for module in model.modules() for name, value in _chances(module)]
    for module, name, _ in chances:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in chances:
            setattr(module, name, value)


def _chances(module: Any) -> Iterator[tuple[str, float]]:
    """A module's chances of dropping something, such as `p`, `attention_dropout` or OPT's `layerdrop`, by name."""
    for name, value in vars(module).items():
        drops = "drop" in name or (name == "p" and isinstance(module, _DropoutNd))
        if drops and isinstance(value, float):
            yield name, value
