"""What other libraries say unasked."""

import logging


def quiet_libraries() -> None:
    """Transformers draws a bar for every model that it loads, bitsandbytes tells of kernels that it could fetch."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
