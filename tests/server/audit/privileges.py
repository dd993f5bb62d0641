"""A process that may not write PATH until it is told to go on: `python -m tests.server.audit.privileges PATH`."""

import asyncio
import os
import sys
from pathlib import Path

from prometheus_client import REGISTRY

from rheostat_server.audit.health import AuditUnavailable
from rheostat_server.audit.log import AuditLog

NOBODY = 65534


async def write_until_allowed(path: Path) -> None:
    audit = AuditLog(path, max_bytes=2**20, backups=1, fail_closed=True)
    try:
        await audit.write({"n": 0})
    except AuditUnavailable:
        denied = REGISTRY.get_sample_value("rheostat_audit_failures_total", {"cause": "denied"})
        print(f"denied {denied:.0f}", flush=True)
    sys.stdin.readline()
    await audit.check()
    await audit.write({"n": 1})
    await audit.close()


if __name__ == "__main__":
    if os.geteuid() == 0:
        os.setuid(NOBODY)
    asyncio.run(write_until_allowed(Path(sys.argv[1])))
