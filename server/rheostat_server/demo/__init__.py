"""The bundled demo: a small base model, its control adapter and its scorers, made by `rheostat demo build`."""

from importlib.resources import files
from pathlib import Path
from typing import Final

DEMO_NAME: Final = "demo"


def bundle_folder() -> Path:
    return Path(str(files("rheostat_server.demo"))) / "bundle"


def base_folder() -> Path:
    return bundle_folder() / "base"


def adapter_folder() -> Path:
    return bundle_folder() / "adapter"


def selector_folder() -> Path:
    """Of the scorer of both dials that candidates are chosen by."""
    return bundle_folder() / "selector"


def scorers_file() -> Path:
    """The file of the scorers that the demo server reranks by."""
    return bundle_folder().parent / "scorers.yaml"
