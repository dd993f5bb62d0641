"""Processor threads of one of our threads alone; PyTorch itself hands the last number set on to all begun later."""

from threading import Lock, Thread
from typing import Final

import torch

_ONE_AT_A_TIME: Final = Lock()


def use_own_threads(count: int) -> None:
    """The calling thread computes with `count` processor threads; others keep theirs, those yet to begin too."""
    with _ONE_AT_A_TIME:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        put_back = Thread(target=torch.set_num_threads, args=(before,))
        put_back.start()
        put_back.join()
