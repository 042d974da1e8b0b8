"""What a run ran on: versions, cores, memory and devices, for run folders and bug reports."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "plaudit",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "numpy",
    "pydantic",
    "SQLAlchemy",
    "pyarrow",
    "rich",
)


DEVICE_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""One of these is there where torch could use a GPU: NVIDIA's, that of WSL, AMD's."""


def system_facts() -> dict[str, Any]:
    """JSON-able facts; imports torch only to name the accelerators it can use."""
    return {
        "time": now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": usable_cores(),
        "threads_set": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": memory_gib(),
        "devices": devices(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def now() -> str:
    """The time as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usable_cores() -> int:
    """Cores this process may use, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory in GiB, to one decimal."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def devices() -> list[str]:
    """Names of the accelerators that torch can use; [] on a machine with none.

    On Linux a machine without an accelerator's device file has none: torch need not be loaded, and
    jobs that do not use it begin without its second of loading.
    """
    if sys.platform == "linux" and not any(Path(file).exists() for file in DEVICE_FILES):
        return []
    import torch

    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
