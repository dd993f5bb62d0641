"""Whether the device that a scorer is to be put on is there."""

import torch


def check_device(device: str) -> None:
    """Raises ValueError for a CUDA device that torch does not see."""
    if device == "cpu":
        return
    count = torch.cuda.device_count()
    wanted = int(device.partition(":")[2] or 0)
    if wanted >= count:
        raise ValueError(f"device is {device!r}, and torch sees {count} CUDA devices; give cpu, or one that is there")
