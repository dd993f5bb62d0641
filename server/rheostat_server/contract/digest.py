"""Digests of model files, so that weights are known by what they hold and not by their path."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

BASE_MODEL_FILES = ("*.safetensors", "tokenizer.json")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


def file_digest(path: Path) -> str:
    """`sha256:` and the hex digest of one file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def folder_digest(folder: Path, patterns: Iterable[str]) -> str:
    """One digest over names and bytes of the files in `folder` that match a pattern.

    Raises:
        FileNotFoundError: no file matches.
    """
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not paths:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(patterns)}")
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return f"sha256:{total.hexdigest()}"


def base_model_digest(folder: Path) -> str:
    """Digest of a base model's weights and tokenizer.

    Raises:
        FileNotFoundError: the folder holds no safetensors weights.
    """
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} holds no *.safetensors; a base model needs its weights in safetensors files")
    return folder_digest(folder, BASE_MODEL_FILES)


def adapter_address(name: str, digest: str) -> str:
    """An adapter's address by content: `name@` and twelve hex digits of its weights' digest."""
    return f"{name}@{digest.removeprefix('sha256:')[:12]}"


def holds(folder: Path, address: str) -> bool:
    """Whether the adapter in a folder is that of an address."""
    try:
        return adapter_address(address.rpartition("@")[0], adapter_digest(folder)) == address
    except FileNotFoundError:
        return False


def adapter_digest(folder: Path) -> str:
    """Digest of a LoRA adapter's weights and PEFT configuration."""
    return folder_digest(folder, ADAPTER_FILES)
