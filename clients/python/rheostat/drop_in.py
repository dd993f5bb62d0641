"""`rheostat.openai`: dials on a client of the `openai` package, which need not be installed for anything else."""

from collections.abc import Mapping
from typing import Protocol, Self, TypeVar

from rheostat.dials import Mode, control_headers


class TakesHeaders(Protocol):
    """What is needed of an `openai.OpenAI` or `openai.AsyncOpenAI`."""

    def with_options(self, *, default_headers: Mapping[str, str]) -> Self:
        """A copy that sends these headers with every request, beside those that it sent already."""
        ...


C = TypeVar("C", bound=TakesHeaders)


def openai(client: C, *, safety: float | None = None, helpfulness: float | None = None, mode: Mode | None = None) -> C:
    """The client with dials on every request; the one given stays as it is.

    A request's own `extra_body={"control": {…}}` goes before them. `Receipt.of(answer.control)` reads the receipt.
    """
    return client.with_options(default_headers=control_headers(safety=safety, helpfulness=helpfulness, mode=mode))
