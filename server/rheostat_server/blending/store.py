"""Which blends exist: each verified with its components and its base model; and what is served at a grid point."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rheostat_server.adapters import (
    AdapterRefused,
    check_base,
    check_contained,
    check_peft_files,
    check_weights,
    checked_control_text,
)
from rheostat_server.contract.blend import BLEND_FILE, BlendError, BlendManifest, Component, read_blend
from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials, Limits
from rheostat_server.contract.digest import adapter_address, file_digest
from rheostat_server.contract.manifest import MANIFEST_FILE, ManifestError, read_manifest
from rheostat_server.engines import Part
from rheostat_server.engines.plain_lora import NotPlainLora, PlainLora, read_plain_lora
from rheostat_server.errors import UnknownAdapter


@dataclass(frozen=True, slots=True)
class BlendPoint:
    """What is served at some dials: the weights by component, and the parts, which are those whose weight is not 0.

    Without parts it is the base model itself.
    """

    dials: Dials
    address: str
    weights: Mapping[str, float]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Blend:
    """A verified blend; `id` is `name@digest`, of its manifest, which holds the digests of all weights.

    `components` are the PEFT folders with what they hold, by component.
    """

    id: str
    manifest: BlendManifest
    components: Mapping[str, tuple[Path, PlainLora]]

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def control_text(self) -> ControlText | None:
        spec = self.manifest.control_text
        return checked_control_text(spec.template) if spec else None

    @property
    def loras(self) -> list[PlainLora]:
        return [lora for _, lora in self.components.values()]

    def at(self, dials: Dials, within: Limits) -> BlendPoint:
        """The blend at the grid point of the dials, within an operator's limits."""
        return self._point(self.manifest.grid_point(dials, within))

    def points(self) -> list[BlendPoint]:
        """Those of the whole grid that differ; limits of an operator may add some."""
        levels = self.manifest.levels
        everywhere = (self._point(Dials(safety=s, helpfulness=h)) for s, h in product(levels, levels))
        return list({point.address: point for point in everywhere}.values())

    def trials(self) -> list[BlendPoint]:
        """Points that have between them every component that any point has; the first one has as many as any."""
        points, tried = self.points(), list[BlendPoint]()
        left = {part.id for point in points for part in point.parts}
        while left:
            tried.append(max(points, key=lambda point: len(left.intersection(part.id for part in point.parts))))
            left.difference_update(part.id for part in tried[-1].parts)
        return tried

    def folders(self) -> dict[str, Path]:
        """The components' folders by the ids that parts bear."""
        return {_part_id(self.name, each): self.components[each.name][0] for each in self.manifest.components}

    def _point(self, dials: Dials) -> BlendPoint:
        manifest = self.manifest
        weights = manifest.weights_at(dials)
        parts = (
            Part(_part_id(self.name, each), self.components[each.name][0], weights[each.name])
            for each in manifest.components
            if weights[each.name]
        )
        return BlendPoint(dials, manifest.address(weights), weights, tuple(parts))


@dataclass(frozen=True, slots=True)
class BlendStore:
    """The blends of one base model, the default one first."""

    blends: tuple[Blend, ...] = ()

    @property
    def ids(self) -> list[str]:
        return [blend.id for blend in self.blends]

    @property
    def names(self) -> list[str]:
        return [blend.name for blend in self.blends]

    def folders(self) -> Mapping[str, Path]:
        """Every component's folder by its id."""
        return {id: folder for blend in self.blends for id, folder in blend.folders().items()}

    def trials(self) -> dict[str, tuple[Part, ...]]:
        """What an engine loads that will load every blend of every component."""
        return {point.address: point.parts for blend in self.blends for point in blend.trials()}

    def has(self, name: str) -> bool:
        return name in self.ids or name in self.names

    def find(self, name: str) -> Blend:
        """The blend of that name or id.

        Raises:
            UnknownAdapter: there is none.
        """
        for blend in self.blends:
            if name in (blend.name, blend.id):
                return blend
        raise UnknownAdapter(name, self.ids, kind="blend")


def _part_id(blend: str, component: Component) -> str:
    """No adapter bears it: their names have no slash."""
    return f"{blend}/{adapter_address(component.name, component.weights_digest)}"


def load_blends(folders: Iterable[Path], *, base_digest: str | None, taken: Collection[str] = ()) -> BlendStore:
    """Verifies the blends in `folders`; names that are `taken` are those of adapters.

    `base_digest` is as for `adapters.load_adapters`.

    Raises:
        AdapterRefused: a blend or one of its components is refused for what an adapter is, or is no plain LoRA, or
            its control text is not that with which a component was trained, or bears a name already given.
    """
    blends: list[Blend] = []
    for folder in folders:
        blend = load_blend(folder, base_digest=base_digest)
        if blend.name in {*taken, *(known.name for known in blends)}:
            raise AdapterRefused(
                f"{folder}: the name {blend.name!r} is taken; names of blends and adapters must differ"
            )
        blends.append(blend)
    return BlendStore(tuple(blends))


def load_blend(folder: Path, *, base_digest: str | None) -> Blend:
    """One verified blend; see `load_blends`."""
    check_contained(folder, right="--blend takes a folder with blend.json and its adapters")
    try:
        manifest = read_blend(folder)
    except BlendError as exc:
        raise AdapterRefused(str(exc)) from exc
    check_base(folder, manifest.name, manifest.base_model, base_digest)
    components = {each.name: _verified(folder / each.folder, each) for each in manifest.components}
    _check_control_text(folder, manifest)
    _check_sizes(folder, {name: lora for name, (_, lora) in components.items()})
    return Blend(adapter_address(manifest.name, file_digest(folder / BLEND_FILE)), manifest, components)


def _verified(folder: Path, component: Component) -> tuple[Path, PlainLora]:
    check_contained(folder, right=f"it should hold the component {component.name!r}")
    check_peft_files(folder)
    check_weights(folder, component.weights_digest)
    try:
        return folder.resolve(), read_plain_lora(folder)
    except NotPlainLora as exc:
        raise AdapterRefused(f"component {component.name!r} cannot be blended: {exc}") from exc


def _check_sizes(folder: Path, loras: Mapping[str, PlainLora]) -> None:
    """Changes that are added up are of one layer of one model."""
    first: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, lora in loras.items():
        for layer, sizes in lora.sizes.items():
            other, its = first.setdefault(layer, (name, sizes))
            if sizes != its:
                raise AdapterRefused(
                    f"{folder / BLEND_FILE}: the component {name!r} changes {layer} of {sizes[0]} inputs and "
                    f"{sizes[1]} outputs, and {other!r} one of {its[0]} and {its[1]}; all must be of one base model"
                )


def _check_control_text(folder: Path, manifest: BlendManifest) -> None:
    """A component that obeys control text is asked with it, or whoever writes it into a message would set its dials."""
    templates = {
        each.name: template
        for each in manifest.components
        if (template := _trained_template(folder / each.folder, manifest)) is not None
    }
    written = manifest.control_text.template if manifest.control_text else None
    for name, template in templates.items():
        if template != written:
            raise AdapterRefused(
                f"{folder / BLEND_FILE}: control_text is {written!r}, and the component {name!r} was trained with "
                f"{template!r}; say that in control_text.template"
            )
    if written is not None and not templates:
        raise AdapterRefused(
            f"{folder / BLEND_FILE}: control_text is {written!r}, and no component has a {MANIFEST_FILE} that says it "
            "was trained with it; leave control_text out"
        )


def _trained_template(folder: Path, blend: BlendManifest) -> str | None:
    """The control text of a component that has a manifest of its own, which must be for the same base model."""
    if not (folder / MANIFEST_FILE).is_file():
        return None
    try:
        own = read_manifest(folder)
    except ManifestError as exc:
        raise AdapterRefused(str(exc)) from exc
    check_base(folder, own.name, own.base_model, blend.base_model.digest)
    return own.control_text.template
