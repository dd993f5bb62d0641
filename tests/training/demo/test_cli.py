"""The demo's commands answer a user's mistake in a line."""

import pytest
from typer.testing import CliRunner

from rheostat_training.demo.cli import app


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(app, ["evaluate", "--url", "http://127.0.0.1:9", "--prompts", "2"])
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 did not answer: " in result.stderr
