"""The book in force, and how another one takes its place while requests run."""

import asyncio
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from rheostat_server.callers import Caller
from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.file import Known, PolicyError, read_policy
from rheostat_server.callers.schema import OidcPart
from rheostat_server.callers.telemetry import POLICY_KEYS, POLICY_LOADED, POLICY_RELOADS
from rheostat_server.errors import Unauthorized

log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from rheostat_server.callers.tokens import Issuer

_BEARER: Final = "bearer "


@dataclass(slots=True)
class Shelf:
    """Holds one book. A request takes its Caller from it when it comes, and keeps it, whatever is read meanwhile."""

    path: Path
    defaults: Defaults
    known: Known
    book: Book
    issuer: "Issuer | None" = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _hangups: "set[asyncio.Task[None]]" = field(default_factory=set)

    @classmethod
    def read(cls, path: Path, defaults: Defaults, known: Known | None = None) -> "Shelf":
        """Raises PolicyError if the file does not fit."""
        found = known or Known()
        book = _book(path, defaults, found)
        shelf = cls(path, defaults, found, book, _issuer(book.oidc))
        for outcome in ("taken", "refused"):
            POLICY_RELOADS.labels(outcome)
        shelf._tell()
        return shelf

    async def caller_of(self, authorization: str | None) -> Caller:
        """The caller of a request by its Authorization header.

        Raises:
            Unauthorized: a key or token of nobody, or none where one is needed.
        """
        book, issuer = self.book, self.issuer
        if authorization is None:
            return book.caller_without_key()
        if not authorization.lower().startswith(_BEARER):
            raise Unauthorized("the Authorization header is of another scheme; it must be Bearer and the key")
        credential = authorization[len(_BEARER) :].strip()
        caller = book.caller_of_key(credential)
        if caller is None and issuer is not None:
            caller = await issuer.caller_of(credential, book.policies)
        if caller is None:
            raise Unauthorized("the key is not known here")
        return caller

    async def reload(self) -> Book:
        """Reads the file anew, in a thread, one after the other. One that does not fit leaves the book in force.

        Raises:
            PolicyError: it does not fit.
        """
        async with self._reading:
            try:
                book, issuer = await asyncio.to_thread(self._read_anew)
            except PolicyError as exc:
                POLICY_RELOADS.labels("refused").inc()
                log.error("policy refused, the old one stays in force", reason=str(exc))
                raise
            self.book, self.issuer = book, issuer
        self._tell()
        POLICY_RELOADS.labels("taken").inc()
        log.info("policy read", keys=len(book.keys), envelopes=sorted(book.policies), digest=book.digest[:12])
        return book

    def reload_on_hangup(self) -> None:
        """Reads the file anew whenever this process gets SIGHUP; must be called within the event loop.

        Signals reach a process's main thread alone: an app in another thread, as on Ray, does not hear them.
        """
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hangup)

    def _hangup(self) -> None:
        task = asyncio.ensure_future(self._reload_quietly())
        self._hangups.add(task)
        task.add_done_callback(self._hangups.discard)

    async def _reload_quietly(self) -> None:
        with suppress(PolicyError):  # which is in the log
            await self.reload()

    def _read_anew(self) -> "tuple[Book, Issuer | None]":
        """An issuer that is the same keeps its keys."""
        book = _book(self.path, self.defaults, self.known)
        return book, self.issuer if book.oidc == self.book.oidc else _issuer(book.oidc)

    def _tell(self) -> None:
        """Of the book in force."""
        POLICY_LOADED.set_to_current_time()
        POLICY_KEYS.set(len(self.book.keys))


def _issuer(part: OidcPart | None) -> "Issuer | None":
    """Raises PolicyError if the package that checks signatures is not installed."""
    if part is None:
        return None
    try:
        from rheostat_server.callers.tokens import Issuer
    except ModuleNotFoundError as exc:
        raise PolicyError(
            f"oidc needs {exc.name}, which is not installed; run: pip install '.[oidc]' in the checkout"
        ) from exc
    return Issuer(part)


def _book(path: Path, defaults: Defaults, known: Known) -> Book:
    part, digest = read_policy(path, known)
    return Book.of(part, defaults, digest=digest)
