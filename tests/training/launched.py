"""What `accelerate launch` makes of a module: processes on the CPU that talk by gloo."""

import sys
from pathlib import Path

from tools.processes import free_port, output_of


def launched(module: str, *arguments: str | Path, log: Path) -> str:
    """What two processes of `python -m module` say, until both have ended well."""
    command: list[str | Path] = [
        sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch",
        "--cpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no",
        f"--main_process_port={free_port()}", "-m", module, *arguments,
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    return output_of(command, log=log, within_s=240, environment=environment)
