"""The files of a scorer's model: where they lie, and the digest that its levels are known by."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rheostat_server.contract.digest import folder_digest

MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
CODE_FILES = ("*.py",)
SAME_AGAIN = ("consolidated*", "original/*")
"""The same weights once more, in their makers' own layout."""


def model_folder(name: str, *, revision: str | None = None, code: bool = False) -> Path:
    """A folder of this machine, or that of a name on a hub, whose safetensors are fetched, and its code if asked.

    Raises:
        ValueError: there is no such folder, and no hub has the name or none can be reached.
    """
    here = Path(name).expanduser()
    if here.is_dir():
        if revision is not None:
            raise ValueError(f"revision is {revision!r}, and model {name!r} is a folder, which has none; leave it out")
        return here
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = [*MODEL_FILES, *(CODE_FILES if code else ())]
    try:
        found = snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=list(SAME_AGAIN))
    except (HfHubHTTPError, HFValidationError, OSError) as exc:
        raise ValueError(f"model is {name!r}, which is no folder here and cannot be fetched from a hub: {exc}") from exc
    return Path(found)


def scorer_digest(folder: Path, settings: Any, *, code: bool = False) -> str:
    """One digest of the model's files, of those in its encoder's folder if it has one, and of the settings.

    Raises:
        ValueError: there are no safetensors, which alone are loaded.
    """
    if not any(folder.rglob("*.safetensors")):
        raise ValueError(f"model is {str(folder)!r}, which holds no *.safetensors; pickled weights are not loaded")
    patterns = [*MODEL_FILES, *(CODE_FILES if code else ())]
    folders = [folder, *(part for part in (folder / "encoder",) if part.is_dir())]
    facts = {"files": [folder_digest(part, patterns) for part in folders], "settings": settings}
    return f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"
