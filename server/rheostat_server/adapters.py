"""Which adapters exist: each verified against its manifest and its base model, and addressed by content."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.digest import adapter_digest, base_model_digest
from rheostat_server.contract.manifest import BaseModelReference, Manifest, ManifestError, read_manifest
from rheostat_server.errors import CannotStart, UnknownAdapter

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
REQUIRED_FILES = ("adapter_config.json", "adapter_model.safetensors")


class AdapterRefused(CannotStart):
    """An adapter must not be served; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A verified adapter; `id` is `name@digest`, the address by which engines know it."""

    id: str
    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def control_text(self) -> ControlText:
        return checked_control_text(self.manifest.control_text.template)


@dataclass(frozen=True, slots=True)
class AdapterStore:
    """The adapters of one base model, the default one first."""

    adapters: tuple[Adapter, ...] = ()

    @property
    def ids(self) -> list[str]:
        return [adapter.id for adapter in self.adapters]

    @property
    def names(self) -> list[str]:
        return [adapter.name for adapter in self.adapters]

    def folders(self) -> Mapping[str, Path]:
        return {adapter.id: adapter.folder for adapter in self.adapters}

    def has(self, name: str) -> bool:
        return name in self.ids or name in self.names

    def find(self, name: str) -> Adapter:
        """The adapter of that name or id.

        Raises:
            UnknownAdapter: there is none.
        """
        for adapter in self.adapters:
            if name in (adapter.name, adapter.id):
                return adapter
        raise UnknownAdapter(name, self.ids)


@cache
def checked_control_text(template: str) -> ControlText:
    """Checked once, and not again for each request."""
    return ControlText(template)


def digest_of_base(folder: Path) -> str:
    """What `load_adapters` compares manifests with.

    Raises:
        CannotStart: the folder holds no weights that may be served.
    """
    try:
        return base_model_digest(folder)
    except FileNotFoundError as exc:
        raise CannotStart(str(exc)) from exc


def load_adapters(folders: Iterable[Path], *, base_digest: str | None) -> AdapterStore:
    """Verifies the adapters in `folders`.

    `base_digest` is `digest_of_base` of the base model, or None where its files are not at hand (a remote
    engine): the base model is then taken on the operator's word.

    Raises:
        AdapterRefused: a folder lacks its manifest or weights, holds pickled weights, leads out of itself, was changed
            after its manifest was written, was made for another base model, or bears a name already given.
    """
    adapters: list[Adapter] = []
    for folder in folders:
        adapter = load_adapter(folder, base_digest=base_digest)
        if adapter.name in {known.name for known in adapters}:
            raise AdapterRefused(f"{folder}: two adapters are named {adapter.name!r}; names must differ")
        adapters.append(adapter)
    return AdapterStore(tuple(adapters))


def load_adapter(folder: Path, *, base_digest: str | None) -> Adapter:
    """One verified adapter; see `load_adapters`."""
    try:
        check_contained(folder, right="--adapter takes the folder that training wrote")
        check_peft_files(folder)
        manifest = read_manifest(folder)
    except ManifestError as exc:
        raise AdapterRefused(str(exc)) from exc
    check_weights(folder, manifest.weights_digest)
    check_base(folder, manifest.name, manifest.base_model, base_digest)
    return Adapter(id=manifest.id, folder=folder, manifest=manifest)


def check_contained(folder: Path, *, right: str) -> None:
    """Raises AdapterRefused for a folder that leads out of itself or holds pickled weights.

    Where there is no folder, `right` says what there should be.
    """
    if not folder.is_dir():
        raise AdapterRefused(f"{folder} is not a folder; {right}")
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise AdapterRefused(f"{path} leads out of the adapter's folder, to {path.resolve()}")
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise AdapterRefused(f"{path} may hold pickled code; only safetensors weights are served")


def check_peft_files(folder: Path) -> None:
    """Raises AdapterRefused where a file of an adapter is missing."""
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise AdapterRefused(f"{folder / name} is missing; an adapter folder needs {' and '.join(REQUIRED_FILES)}")


def check_weights(folder: Path, said: str) -> None:
    """Raises AdapterRefused where the weights are not those of the digest that a manifest says, or name other files."""
    found = adapter_digest(folder)
    if found != said:
        raise AdapterRefused(
            f"{folder}: the weights have the digest {found}, the manifest says {said}; "
            "they were changed after the manifest was written"
        )
    if leaving := _paths_that_leave(folder):
        raise AdapterRefused(f"{folder}/adapter_config.json names paths outside the adapter's folder: {leaving}")


def _paths_that_leave(folder: Path) -> Sequence[str]:
    """PEFT reads more files only where its configuration says so: `init_lora_weights` and the like may name paths."""
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise AdapterRefused(f"{path} is not valid JSON: {exc}") from exc
    if not isinstance(config, dict):
        raise AdapterRefused(f"{path} must hold a JSON object, as PEFT writes it")
    named = _texts([value for key, value in config.items() if key not in ("base_model_name_or_path", "revision")])
    return [text for text in named if text.startswith(("/", "~")) or ".." in Path(text).parts]


def _texts(value: object) -> Iterator[str]:
    """Every text within a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def check_base(folder: Path, name: str, made_for: BaseModelReference, base_digest: str | None) -> None:
    """Raises AdapterRefused where the model being served, if its digest is known, is another."""
    if base_digest is not None and made_for.digest != base_digest:
        raise AdapterRefused(
            f"{folder}: adapter {name!r} was made for the base model {made_for.name!r} with the "
            f"digest {made_for.digest}; the model being served has {base_digest}"
        )
