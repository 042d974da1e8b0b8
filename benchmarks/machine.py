"""What a benchmark ran on, in one line, and the rates of this machine that bound it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from plaudit.records.system import memory_gib, usable_cores


def description() -> str:
    """Processor, cores used, memory, versions, and the kernels of NumPy's matrix products."""
    import transformers

    return (
        f"{_processor()}, {usable_cores()} cores, {memory_gib()} GiB, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {torch.get_num_threads()} thread(s), "
        f"NumPy's products by {_products()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        wide = "with" if any("avx512f" in line for line in lines) else "without"
        return f"{name} {wide} AVX-512"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _products() -> str:
    """Library and the processor family whose kernels it chose, as in "openblas for SkylakeX"."""
    found = [
        f"{library['internal_api']} for {library.get('architecture', 'this processor')}"
        for library in threadpool_info()
        if library["user_api"] == "blas" and "numpy" in library["filepath"]
    ]
    return ", ".join(found) or "a library unknown"


def best_seconds(call: Callable[[], object], *, repeats: int = 5) -> float:
    """The least wall-clock time of a call, after one that warms it."""
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def read_rate() -> float:
    """Bytes a second when reading 256 MB once."""
    buffer = torch.ones(64_000_000)
    return 4 * buffer.numel() / best_seconds(buffer.sum)
