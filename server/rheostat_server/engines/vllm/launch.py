"""`rheostat serve --engine vllm`: starts vLLM's own server, by its own command line, with our plugin in it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rheostat_server import demo
from rheostat_server.adapters import AdapterStore, digest_of_base, load_adapters
from rheostat_server.blending.store import BlendStore, load_blends
from rheostat_server.engines.vllm.environment import set_environment
from rheostat_server.serve import adapter_folders, scorers_file
from rheostat_server.settings import Settings

# The demo is small: without these, vLLM would take half of the machine's memory, and a minute to compile.
DEMO_FLAGS: Final = ("--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", "1G")


def run_vllm(settings: Settings, flags: Sequence[str]) -> None:
    """Serves until stopped: the model of the settings, or the demo. `flags` are the operator's, and win over ours.

    Raises:
        AdapterRefused: an adapter must not be served.
        CannotStart: a flag starts another server of vLLM's, which knows no plugins.
    """
    sys.argv = ["vllm", "serve", *prepared(settings, flags)]
    from vllm.entrypoints.cli.main import main

    main()


def prepared(settings: Settings, flags: Sequence[str]) -> list[str]:
    """What stands after `vllm serve`; the environment of this process is as vLLM and our plugin need it.

    Raises:
        AdapterRefused: an adapter must not be served.
        CannotStart: a flag starts another server of vLLM's, which knows no plugins.
    """
    model = settings.model or str(demo.base_folder())
    adapters, blends = _verified(model, settings)
    set_environment(
        os.environ,
        adapters.folders().values(),
        scorers_file(settings),
        settings.policy,
        blends=settings.blends,
        allow_anonymous=settings.allow_anonymous,
    )
    return [model, *_flags(settings, adapters, blends, flags)]


def _verified(model: str, settings: Settings) -> tuple[AdapterStore, BlendStore]:
    """The plugin verifies them again where vLLM has found the model; here a bad one is refused within a second."""
    folders = adapter_folders(settings)
    at_hand = (folders or settings.blends) and Path(model).is_dir()
    digest = digest_of_base(Path(model)) if at_hand else None
    adapters = load_adapters(folders, base_digest=digest)
    return adapters, load_blends(settings.blends, base_digest=digest, taken=adapters.names)


def _flags(settings: Settings, adapters: AdapterStore, blends: BlendStore, flags: Sequence[str]) -> list[str]:
    # vLLM reads its environment when it is imported, so not before it is set.
    from rheostat_server.engines.vllm.flags import completed

    own = DEMO_FLAGS if settings.model is None else ()
    return completed(settings, adapters, [*own, *flags], blends=blends)
