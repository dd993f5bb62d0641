"""The client for threads. `async_client.py` is its twin; all that is not sending and waiting they share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, Unpack

import httpx

from rheostat import calls
from rheostat.answers import Answer, Judgement, Plan, Point, Sweep
from rheostat.calls import Levels, Messages, Options
from rheostat.connection import TIMEOUT, Connection, http_options
from rheostat.dials import Control, Dials, DialsLike, Mode
from rheostat.envelope import Envelope
from rheostat.events import ChatReading, SweepReading
from rheostat.retries import Retries
from rheostat.streams import ChatStream, Stream


class Client:
    """A Rheostat server, its dials among each request's arguments.

    `base_url` and `api_key` are RHEOSTAT_BASE_URL and RHEOSTAT_API_KEY where they are left out, and then the server on
    this machine without a key. `dials` and `mode` hold for requests that name none. `retries` is how often a request
    that the server has no room for (429, 503), or that did not reach it, is sent again. `transport` is httpx's, for
    tests. Every method raises RheostatError for what the server says, and ValueError for what must not be sent.
    """

    def __init__(
        self, base_url: str | None = None, api_key: str | None = None, *, timeout: float | httpx.Timeout = TIMEOUT,
        retries: int = 2, dials: DialsLike | None = None, mode: Mode | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:  # fmt: skip
        self._defaults = Control(Dials.of(dials), mode)
        sending = Retries(retries)
        http = httpx.Client(**http_options(base_url, api_key, timeout), transport=transport)
        self._connection = Connection(http, sending)

    def chat(self, messages: Messages, **options: Unpack[Options]) -> Answer:
        """Answers a conversation, or a text alone, at the dials."""
        return self._connection.send(calls.chat(messages, options, self._defaults))

    @contextmanager
    def stream(self, messages: Messages, **options: Unpack[Options]) -> Iterator[ChatStream]:
        """The same in pieces of text: `with client.stream(…) as pieces`. Its receipt comes last."""
        call = calls.stream(messages, options, self._defaults)
        with self._connection.open(call) as response:
            yield ChatStream(response, ChatReading(calls.request_id(response)))

    def plan(self, messages: Messages, **options: Unpack[Options]) -> Plan:
        """What `chat` would do; nothing is run."""
        return self._connection.send(calls.plan(messages, options, self._defaults))

    def score(self, messages: Messages, response: str) -> Judgement:
        """What the server's scorers say of a response to a conversation."""
        return self._connection.send(calls.score(messages, response))

    def sweep(
        self, messages: Messages, *, safety: Levels | None = None, helpfulness: Levels | None = None,
        scores: bool = True, **options: Unpack[Options],
    ) -> Sweep:  # fmt: skip
        """Answers a conversation at a grid of levels, five of either dial where none is named."""
        grid = calls.grid(safety, helpfulness, scores=scores)
        return self._connection.send(calls.sweep(messages, grid, options, self._defaults))

    @contextmanager
    def sweep_stream(
        self, messages: Messages, *, safety: Levels | None = None, helpfulness: Levels | None = None,
        scores: bool = True, **options: Unpack[Options],
    ) -> Iterator[Stream[Point]]:  # fmt: skip
        """The same point by point, as they are reached."""
        grid = calls.grid(safety, helpfulness, scores=scores)
        call = calls.sweep(messages, grid, options, self._defaults).with_field("stream", True)
        with self._connection.open(call) as response:
            yield Stream(response, SweepReading(calls.request_id(response)))

    def models(self) -> list[str]:
        """Every name that a request may give as its model."""
        return self._connection.send(calls.MODELS)

    def control(self) -> Envelope:
        """What this caller may set."""
        return self._connection.send(calls.ENVELOPE)

    @property
    def defaults(self) -> Control:
        """What it asks of the dials where a request says nothing of them."""
        return self._defaults

    def with_dials(
        self, *, safety: float | None = None, helpfulness: float | None = None, mode: Mode | None = None
    ) -> Self:
        """A client with these in the place of this one's, which stays as it is; they share their connections."""
        copy = object.__new__(type(self))
        copy._connection = self._connection
        copy._defaults = self._defaults.changed(Dials(safety, helpfulness), mode)
        return copy

    def close(self) -> None:
        """Closes the connections, of copies too."""
        self._connection.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
