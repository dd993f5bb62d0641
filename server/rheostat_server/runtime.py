"""What a running server holds: its engine, its limits, and the means to control."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from rheostat_server.callers.book import Defaults
from rheostat_server.callers.shelf import Shelf
from rheostat_server.engines import Engine
from rheostat_server.plan import Means
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.reranking.track import Track
from rheostat_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a route reaches, as `app.state.rheostat`. `track` is None where there are no scorers.

    `policy` is everyone's where there is no policy file, and so no `shelf`.
    """

    engine: Engine
    means: Means
    settings: Settings = field(default_factory=Settings)
    policy: Policy = field(default_factory=Policy)
    shelf: Shelf | None = None
    track: Track | None = None

    async def close(self) -> None:
        """Frees the scorers and the engine, each even if another cannot be freed."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.engine.close)
            if self.track is not None:
                stack.push_async_callback(self.track.panel.close)


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
