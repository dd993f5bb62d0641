"""docs/blend.md: its manifest is one, and its receipt is what that manifest makes of its dials."""

import json
import re
from pathlib import Path
from typing import Any

from rheostat_server.blending.store import Blend
from rheostat_server.contract.blend import BlendManifest
from rheostat_server.contract.dials import Dials
from rheostat_server.engines.plain_lora import PlainLora
from tests.docs.blocks import every_block

MANIFEST, RECEIPT = (
    json.loads(re.sub(r"sha256:(\w{4})…", rf"sha256:\g<1>{60 * chr(48)}", block.text))
    for block in every_block("json")
    if block.page.name == "blend.md"
)


def shown() -> Blend:
    manifest = BlendManifest.model_validate(MANIFEST)
    lora = PlainLora({"layer": 1}, {"layer": 1.0}, {"layer": (2, 2)})
    return Blend("experts@0123", manifest, {each.name: (Path(each.folder), lora) for each in manifest.components})


def test_the_receipt_is_what_the_manifest_makes_of_its_dials() -> None:
    asked: dict[str, Any] = RECEIPT["effective"]
    point = shown().at(Dials(**asked), {})
    assert dict(point.weights) == RECEIPT["blend"]
    assert point.dials.as_dict() == RECEIPT["control_values"]


def test_the_grid_has_as_many_points_as_the_page_says() -> None:
    assert len(shown().points()) == 25
