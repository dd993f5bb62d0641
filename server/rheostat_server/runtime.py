"""What a running server holds: its engine, its limits, and the means to control."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from starlette.applications import Starlette

from rheostat_server.admission import LAST_SECONDS, Admission
from rheostat_server.audit.file import AuditFile, Rotation
from rheostat_server.audit.log import LEAST_PROBE, AuditLog
from rheostat_server.blending.rack import Rack
from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.engines import Engine
from rheostat_server.errors import CannotStart
from rheostat_server.limits.fair_queue import FairQueue, NoQueue, Queue
from rheostat_server.limits.rate_limits import RateLimits
from rheostat_server.plan import Means
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.reranking.track import Track
from rheostat_server.settings import Settings
from rheostat_server.tracing import NO_TRACING, Tracing


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a route reaches, as `app.state.rheostat`.

    `track` is None where there are no scorers, `rack` where there are no blends.
    `policy` is everyone's where there is no policy file, and so no `shelf`.
    """

    engine: Engine
    means: Means
    settings: Settings = field(default_factory=Settings)
    policy: Policy = field(default_factory=Policy)
    shelf: Shelf | None = None
    track: Track | None = None
    rack: Rack | None = None
    admission: Admission = field(default_factory=Admission)
    tracing: Tracing = NO_TRACING

    async def close(self) -> None:
        """Frees what it holds, the audit log and the traces last, each even if another cannot be freed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.tracing.close)
            stack.push_async_callback(self.admission.close)
            stack.push_async_callback(self.engine.close)
            if self.rack is not None:
                stack.push_async_callback(self.rack.close)
            if self.track is not None:
                stack.push_async_callback(self.track.panel.close)


def runtime_in(app: Starlette) -> Runtime | None:
    """What an app serves with; None while the server is starting."""
    known = getattr(app.state, "rheostat", None)
    return known if isinstance(known, Runtime) else None


def policy_from(settings: Settings) -> Policy:
    """The policy of a server without a policy file: everyone may set everything."""
    return Policy(
        envelope=Envelope(
            safety=DialRange(default=settings.default_safety),
            helpfulness=DialRange(default=settings.default_helpfulness),
            max_candidates=settings.max_candidates,
            safety_floor=settings.safety_floor,
            refusal=settings.refusal,
        )
    )


def defaults_from(settings: Settings) -> Defaults:
    """What the envelopes of a policy file take where they say nothing."""
    return Defaults(
        {"safety": settings.default_safety, "helpfulness": settings.default_helpfulness},
        settings.max_candidates,
        settings.safety_floor,
        settings.refusal,
    )


def admission_from(settings: Settings, *, urgent_first: bool = False) -> Admission:
    """What requests pass before their work; `urgent_first` is the engine's.

    Raises:
        CannotStart: the audit log cannot be written, or the address of Redis is none.
    """
    redis = settings.limits_redis.get_secret_value() if settings.limits_redis else None
    return Admission(
        audit=_audit(settings),
        rates=RateLimits.over(redis, fail_open=settings.limits_fail_open, deadline=settings.limits_deadline),
        queue=_queue(settings, urgent_first=urgent_first),
        last_seconds=LAST_SECONDS + 2 * settings.limits_deadline,
    )


def _queue(settings: Settings, *, urgent_first: bool) -> Queue:
    """Raises CannotStart if all places are reserved."""
    if settings.max_running is None:
        return NoQueue()
    if (settings.reserved_running or 0) >= settings.max_running:
        raise CannotStart(
            f"reserved_running is {settings.reserved_running}; it must be below max_running, {settings.max_running}"
        )
    return FairQueue(
        running=settings.max_running,
        waiting=settings.max_waiting,
        deadline=settings.queue_seconds,
        reserved=settings.max_running // 4 if settings.reserved_running is None else settings.reserved_running,
        urgent_first=urgent_first,
    )


def _audit(settings: Settings) -> AuditLog | None:
    """The log that the settings name, once its file was seen to take a line."""
    if settings.audit is None:
        return None
    rotation = Rotation(settings.audit_max_bytes, settings.audit_backups)
    try:
        file = AuditFile(settings.audit, rotation, sync=settings.audit_sync)
        file.probe(LEAST_PROBE)
        file.close()
    except OSError as exc:
        raise CannotStart(f"the audit log {settings.audit} cannot be written: {exc.strerror or exc}") from exc
    return AuditLog(
        settings.audit,
        max_bytes=rotation.max_bytes,
        backups=rotation.backups,
        fail_closed=settings.audit_fail_closed,
        sync=settings.audit_sync,
    )
