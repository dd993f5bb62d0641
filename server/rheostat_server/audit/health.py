"""Whether the audit log can be written: counted, and told in the server's log when that changes."""

import errno
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Final, Literal, get_args

import structlog
from prometheus_client import Counter, Gauge

from rheostat_server.errors import RheostatError

log = structlog.get_logger(__name__)

Cause = Literal["disk_full", "gone", "denied", "slow", "queue_full", "closed", "not_json", "other"]

RECORDS: Final = Counter("rheostat_audit_records", "Records written to the audit log.")
LOST: Final = Counter("rheostat_audit_lost", "Records that are not in the audit log.")
FAILURES: Final = Counter("rheostat_audit_failures", "Writes of the audit log that failed, by cause.", ["cause"])
FAILING: Final = Gauge(
    "rheostat_audit_failing", "1 while the audit log cannot be written.", multiprocess_mode="livemax"
)

CAUSES: Final[Mapping[int, Cause]] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "disk_full",
    errno.ENOENT: "gone",
    errno.ENOTDIR: "gone",
    errno.ENODEV: "gone",
    errno.ESTALE: "gone",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EROFS: "denied",
}


class AuditUnavailable(RheostatError):
    """The audit log cannot be written, and the server answers nobody without it."""

    status = 503
    type = "audit_unavailable"
    code = "audit_unavailable"

    def __init__(self, cause: Cause) -> None:
        super().__init__(
            f"the audit log cannot be written ({cause}), and requests are answered only while it can",
            headers={"Retry-After": "1"},
        )


def cause_of(error: OSError) -> Cause:
    return CAUSES.get(error.errno or 0, "other")


class Health:
    """Threads may tell it of writes side by side."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failure: Cause | None = None
        self._lock = Lock()
        for cause in get_args(Cause):
            FAILURES.labels(cause)

    @property
    def failure(self) -> Cause | None:
        """Why the last write failed; None where it did not."""
        return self._failure

    def worked(self, records: int = 0) -> None:
        RECORDS.inc(records)
        with self._lock:
            if self._failure is not None:
                self._failure = None
                FAILING.set(0)
                log.info("audit log works again", path=str(self._path))

    def failed(self, cause: Cause, reason: str, *, lost: int = 0) -> None:
        """`reason` is for the operator, who reads it once, until the log works again."""
        FAILURES.labels(cause).inc()
        LOST.inc(lost)
        with self._lock:
            if self._failure is None:
                FAILING.set(1)
                log.error("audit log fails", path=str(self._path), cause=cause, reason=reason)
            self._failure = cause

    def unwritable(self, reason: str) -> None:
        """A record that is no JSON is a bug of whoever made it, told each time: the next one may well be written."""
        FAILURES.labels("not_json").inc()
        LOST.inc()
        log.error("audit record lost", cause="not_json", reason=reason)
