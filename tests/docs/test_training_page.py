"""docs/training.md shows every key of a run with its default, says what it is, and names every word that it may be."""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from rheostat_training.config import RunConfig, as_values, parse_config

Keys = tuple[str, ...]

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):[^#]*(?:# (?P<comment>.+))?")
DEFAULTS: dict[str, dict[str, Any]] = {
    "config": as_values(RunConfig()),
    "reinforce": {"reinforce": as_values(parse_config({"reinforce": {}}))["reinforce"]},
}

both = pytest.mark.parametrize("name", ["config", "reinforce"])


def block(name: str) -> str:
    return PAGE.split(f"<!-- {name}:begin -->\n```yaml\n")[1].split(f"```\n<!-- {name}:end -->")[0]


def comments(name: str) -> dict[Keys, str]:
    """What a block says of each key; of those in a section that is "as" another, what it says of the section."""
    found: dict[Keys, str] = {}
    place: Keys = ()
    for line in block(name).splitlines():
        match = LINE.fullmatch(line)
        assert match, f"{line!r} is no key with its value"
        place = (*place[: len(match["indent"]) // 2], match["key"])
        above = found.get(place[:-1], "")
        found[place] = match["comment"] or (above if above.startswith("as ") else "")
    return found


def keys_of(values: dict[str, Any], at: Keys = ()) -> Iterator[Keys]:
    """The keys that hold a value, not a section."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, (*at, key))
        else:
            yield *at, key


def hint_of(keys: Keys) -> Any:
    found: Any = RunConfig
    for key in keys:
        [section] = [option for option in (found, *get_args(found)) if is_dataclass(option)]
        found = get_type_hints(section)[key]
    return found


def words(hint: Any) -> set[str]:
    """The words that a type allows."""
    options = get_args(hint)
    return set(options) if get_origin(hint) is Literal else {word for option in options for word in words(option)}


@both
def test_the_page_shows_every_key_with_its_default(name: str) -> None:
    assert yaml.safe_load(block(name)) == DEFAULTS[name]


@both
def test_the_page_says_of_every_key_what_it_is(name: str) -> None:
    said = comments(name)
    unsaid = [keys for keys in keys_of(DEFAULTS[name]) if not said[keys]]
    assert [keys for keys in unsaid if keys[-1] != "seed" or keys == ("seed",)] == []


@both
def test_the_page_names_every_word_that_a_key_may_be(name: str) -> None:
    said = comments(name)
    allowed = {keys: words(hint_of(keys)) for keys in keys_of(DEFAULTS[name])}
    assert sum(bool(each) for each in allowed.values()) >= {"config": 11, "reinforce": 3}[name]
    for keys, each in allowed.items():
        assert each <= set(re.findall(r"[\w-]+", said[keys])), ".".join(keys)
