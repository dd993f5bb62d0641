"""A process that writes so many records: `python -m tests.server.audit.writer PATH NAME RECORDS MAX_BYTES BACKUPS`."""

import asyncio
import sys
from pathlib import Path

from rheostat_server.audit.log import AuditLog

BURST = 25


async def write_all(path: Path, name: str, records: int, max_bytes: int, backups: int) -> None:
    audit = AuditLog(path, max_bytes=max_bytes, backups=backups, fail_closed=True)
    for start in range(0, records, BURST):
        burst = range(start, min(start + BURST, records))
        await asyncio.gather(*(audit.write({"name": name, "n": n, "pad": "x" * (n % 200)}) for n in burst))
    await audit.close()


if __name__ == "__main__":
    path, name, *rest = sys.argv[1:]
    asyncio.run(write_all(Path(path), name, *map(int, rest)))
