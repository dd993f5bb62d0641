"""What `serve deploy` builds from its file: the deployment, once its settings were found to fit."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.serve import Application  # pyright: ignore[reportMissingImports]

from rheostat_server.errors import CannotStart
from rheostat_server.ray_serve.replica import Replica
from rheostat_server.serve import check
from rheostat_server.settings import Settings

NAME: Final = "Rheostat"
LAST_SECONDS: Final = 5
"""Beyond `drain_seconds`, for a replica to free what it holds."""
SERVES_OWN: Final = ("host", "port")


class Arguments(BaseModel):
    """The `args` of a Serve file. Everything else is a RHEOSTAT_ variable of its `runtime_env`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flags: list[str] = Field(default=[], description="Flags of `vllm serve`, for the engine vllm.")


def build(arguments: Arguments) -> Application:
    """Ray calls it with the application's environment; what the Serve file says of the deployment wins over it.

    Raises:
        CannotStart: a setting does not fit; `serve status` shows the message.
    """
    settings = Settings()
    check_on_ray(settings)
    check(settings, arguments.flags)
    deployment = serve.deployment(serve.ingress()(Replica), name=NAME)
    drain = deployment.options(graceful_shutdown_timeout_s=settings.drain_seconds + LAST_SECONDS)
    return drain.bind(arguments.flags)


def check_on_ray(settings: Settings) -> None:
    """Refuses what Ray decides and not we, and a server that anyone could reach without a policy.

    Raises:
        CannotStart: the message says what does not fit.
    """
    if given := [name for name in SERVES_OWN if name in settings.model_fields_set]:
        raise CannotStart(
            f"{given[0]} is set, and Ray Serve listens itself; set it under http_options of the Serve file"
        )
    if settings.policy is None and not settings.allow_anonymous:
        raise CannotStart(
            "there is no policy file, and Ray's proxies may listen beyond this machine: whoever reaches them could set "
            "every dial. Set RHEOSTAT_POLICY, or say RHEOSTAT_ALLOW_ANONYMOUS=true"
        )
