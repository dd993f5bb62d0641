"""docs/api.md: every status of an error is on the page, and every code that says when or whether to try again."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rheostat_server.errors import EngineRejected, RheostatError
from rheostat_server.limits.quota import Quota, Standing, Used

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
for elsewhere in ("rheostat_server.limits.refusals", "rheostat_server.audit.health"):
    importlib.import_module(elsewhere)


def errors(base: type[RheostatError] = RheostatError) -> Iterator[type[RheostatError]]:
    for each in base.__subclasses__():
        if each.__module__.startswith("rheostat_server"):
            yield each
        yield from errors(each)


@pytest.mark.parametrize("error", [error for error in errors() if error is not EngineRejected])
def test_every_error_is_on_the_page(error: type[RheostatError]) -> None:
    assert re.search(rf"^\|[^|]*\b{error.status}\b", PAGE, re.MULTILINE)
    assert error.status < 429 or f"`{error.code}`" in PAGE


def test_the_headers_of_the_rates_are_on_the_page() -> None:
    headers = Quota({"requests": Standing(1, Used())}).headers()
    assert [name for name in headers if name.replace("-requests", "-…") not in PAGE] == []
