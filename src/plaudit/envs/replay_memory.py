"""Whether a replay fits in memory, said before the first step and not after hours."""

from __future__ import annotations

import os
from pathlib import Path

from plaudit.records.errors import UserError

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (version 2 of control groups)."""


def free_memory() -> int | None:
    """Bytes that may still be taken; none where the system does not say."""
    found = []
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit, used = GROUP / "memory.max", GROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)


def check_fits(num_transitions: int, bytes_each: int) -> None:
    """Raises UserError where so many transitions would take more than the memory that is free."""
    free, needed = free_memory(), num_transitions * bytes_each
    if free is not None and needed > free:
        raise UserError(
            f"a replay of {num_transitions} transitions of {bytes_each} bytes needs "
            f"{needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: ask for at most "
            f"{int(0.8 * free) // bytes_each} transitions"
        )
