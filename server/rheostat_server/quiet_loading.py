"""Loading a model of transformers without its progress bars and advice."""

from collections.abc import Generator
from contextlib import contextmanager

import transformers


@contextmanager
def quiet_loading() -> Generator[None, None, None]:
    """Neither bars, nor advice, nor reports of weights that are not needed; errors are raised all the same."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
