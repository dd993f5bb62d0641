"""Where vLLM found the base model's files, and what they are."""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from rheostat_server.contract.digest import base_model_digest


def served_model_digest(model_config: Any) -> str:
    """The digest of the weights and tokenizer that vLLM serves, from the folder or the hub's cache that it read."""
    return base_model_digest(_folder(model_config.model, model_config.revision))


def _folder(model: str, revision: str | None) -> Path:
    folder = Path(model)
    return folder if folder.is_dir() else Path(snapshot_download(model, revision=revision, local_files_only=True))
