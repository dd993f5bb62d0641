"""Processes on the CPU that talk by gloo, as `accelerate launch` starts them on GPUs; on CPUs it starts one alone."""

import sys
from pathlib import Path

from tools.processes import free_port, output_of


def launched(module: str, *arguments: str | Path, log: Path) -> str:
    """What two processes of `python -m module` say, until both have ended well."""
    command: list[str | Path] = [
        sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node=2",
        "--master-addr=127.0.0.1", f"--master-port={free_port()}", "-m", module, *arguments,
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "ACCELERATE_USE_CPU": "true"}
    return output_of(command, log=log, within_s=240, environment=environment)
