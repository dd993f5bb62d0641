"""`blend.json`: what it may say, what it means at a dial, and by which address."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rheostat_server.contract.blend import BlendError, BlendManifest, WeightCurve, read_blend, write_blend
from rheostat_server.contract.dials import Dials, nearest_level

DIGEST = "sha256:" + "0123456789abcdef" * 4
OTHER = "sha256:" + "f" * 64
SAFE: dict[str, Any] = {"dial": "safety", "points": [[0, 0.2], [1, 1]]}
BLEND: dict[str, Any] = {
    "name": "patches",
    "base_model": {"name": "base", "digest": DIGEST},
    "components": [
        {"name": "safe", "folder": "experts/safe", "weights_digest": DIGEST, "weight": SAFE},
        {"name": "help", "folder": "experts/help", "weights_digest": OTHER,
         "weight": {"dial": "helpfulness", "points": [[0, 0], [0.5, 0.5], [1, 0.5]]}},
        {"name": "always", "folder": "always", "weights_digest": OTHER, "weight": 0.25},
    ],
    "training": {"method": "midpo", "data_digests": {}},
    "licence": "Apache-2.0",
}  # fmt: skip


def blend(**fields: Any) -> BlendManifest:
    return BlendManifest.model_validate({**BLEND, **fields})


def component(**fields: Any) -> list[dict[str, Any]]:
    return [{**BLEND["components"][0], **fields}]


def dials(safety: float, helpfulness: float = 0.5) -> Dials:
    return Dials(safety=safety, helpfulness=helpfulness)


def test_a_manifest_that_was_written_is_read_again(tmp_path: Path) -> None:
    write_blend(blend(), tmp_path)
    assert read_blend(tmp_path) == blend()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"grid": 1}, "grid is 1"),
        ({"grid": 500}, "grid is 500"),
        ({"components": []}, "components"),
        ({"components": component(weight=2.5)}, "components.0.weight"),
        ({"components": component(weight=-0.5)}, "components.0.weight"),
        ({"components": component(weight={**SAFE, "points": [[0, -0.5], [1, 1]]})}, "is -0.5: "),
        ({"components": component(weight=float("nan"))}, "components.0.weight"),
        ({"components": component(weight=True)}, "a number from 0 to 2"),
        ({"components": component(weight="1")}, "a number from 0 to 2"),
        ({"components": component(weight=1.0)}, "no weight is set by a dial"),
        ({"components": component(weight={**SAFE, "points": [[0, 0]]})}, "points"),
        ({"components": component(weight={**SAFE, "points": [[0, 0], [0, 1]]})}, "must ascend in the dial"),
        ({"components": component(weight={**SAFE, "points": [[0, 0], [0.5, 1], [1, 0.5]]})}, "only rise or only fall"),
        ({"components": component(weight={**SAFE, "points": [[0, 0], [1, -3]]})}, "is -3: "),
        ({"components": component(weight={**SAFE, "dial": "speed"})}, "is 'speed'"),
        ({"components": component(folder="/etc")}, "within the blend's own"),
        ({"components": component(folder="../other")}, "within the blend's own"),
        ({"components": component(weights_digest="md5:1")}, "is 'md5:1'"),
        ({"components": component() * 2}, "two are named 'safe'"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"schema_version": 2}, "schema_version is 2"),
        ({"control_text": {"template": "none"}}, "control_text.template"),
        ({"of_the_future": 1}, "of_the_future"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_told_by_field_and_value(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    (tmp_path / "blend.json").write_text(json.dumps({**BLEND, **wrong}))
    with pytest.raises(BlendError, match=r"blend\.json") as refused:
        read_blend(tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (-1, "components.0.weight is -1: it must be a number from 0 to 2"),
        ("1", "components.0.weight is '1': it must be a number from 0 to 2"),
        (None, "components.0.weight is None: it must be a number from 0 to 2"),
        (
            {**SAFE, "points": [[0, -1], [1, 1]]},
            "components.0.weight.points.0.1 is -1: it must be a number from 0 to 2",
        ),
        ({"dial": "safety"}, "components.0.weight.points: Field required"),
    ],
)
def test_a_weight_is_refused_in_one_line_that_says_what_is_right(tmp_path: Path, weight: Any, said: str) -> None:
    (tmp_path / "blend.json").write_text(json.dumps({**BLEND, "components": component(weight=weight)}))
    with pytest.raises(BlendError) as refused:
        read_blend(tmp_path)
    assert str(refused.value) == f"{tmp_path / 'blend.json'} is not a valid blend: {said}"


def test_a_weight_may_be_given_as_what_it_is(tmp_path: Path) -> None:
    """As whoever makes a manifest has it."""
    given = blend(components=component(weight=WeightCurve.model_validate(SAFE)))
    write_blend(given, tmp_path)
    assert read_blend(tmp_path) == given == blend(components=component())


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "blend.json").write_text(text, encoding="latin-1")
    with pytest.raises(BlendError, match=r"not a valid blend|not valid JSON"):
        read_blend(tmp_path)


def test_a_missing_manifest_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(BlendError, match=r"blend\.json does not exist"):
        read_blend(tmp_path)


def test_weights_follow_their_dials_and_constants_do_not() -> None:
    assert blend().weights_at(dials(0.5, 0.25)) == {"safe": 0.6, "help": 0.25, "always": 0.25}
    assert blend().weights_at(dials(1, 1)) == {"safe": 1.0, "help": 0.5, "always": 0.25}


unit = st.floats(0, 1)


@given(st.lists(st.tuples(unit, st.floats(0, 2)), min_size=2, max_size=6, unique_by=lambda point: point[0]), unit, unit)
def test_a_weight_never_turns_round_and_stays_within_its_points(
    points: list[tuple[float, float]], one: float, other: float
) -> None:
    ascending = list(zip(sorted(x for x, _ in points), sorted(w for _, w in points), strict=True))
    curve = WeightCurve(dial="safety", points=ascending)
    low, high = (curve.at(dials(value)) for value in sorted((one, other)))
    assert low <= high + 1e-12
    assert ascending[0][1] - 1e-12 <= low <= high + 1e-12 <= ascending[-1][1] + 2e-12


def test_a_dial_is_served_at_the_nearest_level_of_the_grid() -> None:
    assert blend().levels == [0, 0.25, 0.5, 0.75, 1]
    assert blend().grid_point(dials(0.6, 0.13), {}) == dials(0.5, 0.25)
    assert blend(grid=2).grid_point(dials(0.6, 0.13), {}) == dials(1, 0)


@given(unit, unit, unit)
def test_what_is_served_lies_within_the_operators_limits(value: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    asked = min(max(value, low), high)
    served = blend().grid_point(dials(asked), {"safety": (low, high)}).safety
    assert low <= served <= high
    assert served in (*blend().levels, low, high)


def test_where_no_level_lies_within_the_limits_it_is_the_nearer_limit() -> None:
    assert [nearest_level([0, 0.5, 1], value, (0.6, 0.7)) for value in (0.6, 0.63, 0.65, 0.7)] == [0.6, 0.6, 0.7, 0.7]


def test_an_address_is_that_of_what_is_blended() -> None:
    manifest = blend()
    weights = manifest.weights_at(dials(0.5))
    assert manifest.address(weights).startswith("patches@")
    assert manifest.address(weights) == blend(licence="MIT", grid=3).address(weights)
    others = [
        manifest.address({**weights, "safe": 0.61}),
        manifest.address({**weights, "safe": 0.0}),
        blend(base_model={"name": "base", "digest": OTHER}).address(weights),
        blend(components=[{**each, "weights_digest": OTHER} for each in BLEND["components"]]).address(weights),
    ]
    assert len({manifest.address(weights), *others}) == 5


def test_an_address_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from rheostat_server.contract.blend import BlendManifest; "
        "from rheostat_server.contract.dials import Dials; m = BlendManifest.model_validate(json.loads(sys.argv[1])); "
        "print(m.address(m.weights_at(Dials(safety=0.5, helpfulness=0.5))))"
    )
    told = subprocess.check_output([sys.executable, "-c", code, json.dumps(BLEND)], text=True)
    assert told.strip() == blend().address(blend().weights_at(dials(0.5)))


def test_dust_of_floats_makes_no_other_blend() -> None:
    curve = {"dial": "safety", "points": [[0, 0], [1, 0.3]]}
    exact, dusty = (
        blend(components=component(weight=weight)) for weight in (curve, {**curve, "points": [[0, 0], [1, 0.1 + 0.2]]})
    )
    assert exact.address(exact.weights_at(dials(1))) == dusty.address(dusty.weights_at(dials(1)))


def test_a_blend_by_control_text_alone_needs_no_dialled_weight() -> None:
    text = {"template": "[helpful={helpfulness:.2f}][harmless={safety:.2f}]"}
    assert blend(components=component(weight=1.0), control_text=text).dials == []
    with pytest.raises(ValidationError):
        blend(components=component(weight=1.0))
