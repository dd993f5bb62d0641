"""The adapter's `README.md`: a model card as the Hugging Face Hub reads it, made from the manifest alone."""

import re
from pathlib import Path
from typing import Any, Final

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rheostat_server.contract.control_text import ControlText
from rheostat_server.contract.dials import Dials
from rheostat_server.contract.manifest import MANIFEST_FILE, EvaluationRow, Manifest
from rheostat_training.evaluate import FIGURE_NAMES
from rheostat_training.report.html import TEMPLATES, number, setting
from rheostat_training.report.markdown import HEADINGS, cell, row

CARD_FILE: Final = "README.md"
TAGS: Final = ("lora", "rheostat", "controllable-generation", "safety", "helpfulness")
EXAMPLE: Final = Dials(safety=0.9, helpfulness=0.6)
STAND_IN: Final = "BASE_MODEL"
DEMO: Final = "demo"
"""The server's own name for the model that comes with it, which it serves where none is named, without vLLM."""

# Of https://huggingface.co/docs/hub/repositories-licenses, those that are a common licence's name in small letters.
_HUB_LICENCES: Final = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "isc",
        "mpl-2.0",
        "unlicense",
        "llama2",
        "llama3",
        "llama3.1",
        "llama3.2",
        "llama3.3",
        "gemma",
    }
)
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def model_card(manifest: Manifest) -> str:
    """The card. What the manifest holds is text there: it can neither end a code block nor add a line to the header."""
    name = manifest.base_model.name
    on_hub = _HUB_NAME.fullmatch(name) is not None
    demo = name == DEMO
    stand_in = None if on_hub or demo else STAND_IN
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701  # Markdown, where `cell` escapes what a Markdown reader would take for markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "setting": setting, "number": number}
    return environment.get_template("model_card.md.jinja").render(
        header=_header(manifest, on_hub=on_hub),
        manifest=manifest,
        extra="embedded" if demo else "vllm",
        base=stand_in or name,
        named=not demo,
        stand_in=stand_in,
        example=EXAMPLE,
        control_text=ControlText(manifest.control_text.template).render(EXAMPLE),
        evaluation=_evaluation_table(manifest.evaluation),
        manifest_file=MANIFEST_FILE,
    )


def write_model_card(manifest: Manifest, folder: Path) -> Path:
    """Writes the card whole or not at all, and returns its path."""
    path = folder / CARD_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(model_card(manifest), encoding="utf-8")
    return partial.replace(path)


def _header(manifest: Manifest, *, on_hub: bool) -> str:
    """The YAML header; the base model is named there only by a name that the hub can have."""
    licence: dict[str, Any] = {"license": manifest.licence.lower()}
    if manifest.licence.lower() not in _HUB_LICENCES:
        licence = {"license": "other", "license_name": manifest.licence}
    data = ModelCardData(
        base_model=manifest.base_model.name if on_hub else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        **licence,
    )
    return str(data.to_yaml())


def _evaluation_table(rows: list[EvaluationRow]) -> str:
    """The manifest's figures, with intervals where it has them; empty where it has no row."""
    if not rows:
        return ""
    names = [name for name in (*FIGURE_NAMES, "well_formed") if any(name in found.metrics for found in rows)]
    headings = [HEADINGS.get(name, name.replace("_", " ")) for name in names]
    lines = [row(["mode", "judge", "dial", *headings, "prompts"]), row(["---"] * (4 + len(names)))]
    for found in rows:
        figures = [_figure(found.metrics, name) for name in names]
        lines.append(row([found.mode, found.judge, found.dial, *figures, str(found.prompts)]))
    return "\n".join(lines)


def _figure(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    value = number(metrics[name])
    return value if low is None or high is None else f"{value} ({number(low)} to {number(high)})"
