"""What a running server holds: its engine, its limits, and the means to control."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from rheostat_server.engines import Engine
from rheostat_server.plan import Means
from rheostat_server.policy import DialRange, Envelope, Policy
from rheostat_server.reranking.track import Track
from rheostat_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a route reaches, as `app.state.rheostat`. `track` is None where there are no scorers."""

    engine: Engine
    means: Means
    settings: Settings = field(default_factory=Settings)
    policy: Policy = field(default_factory=Policy)
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
