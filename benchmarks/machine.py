"""What a benchmark ran on, in one line, and the rates of this machine that bound it."""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

from plaudit.records.system import memory_gib, usable_cores


def description() -> str:
    """Processor, cores used, memory, versions, and the kernels of NumPy's matrix products."""
    import transformers

    return (
        f"{processor()}, {usable_cores()} cores, {memory_gib()} GiB, {platform.system()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {torch.get_num_threads()} thread(s), "
        f"NumPy's products by {_products()}"
    )


@dataclass(frozen=True)
class Processor:
    """What decides how fast a processor multiplies and reads."""

    vendor: str
    name: str
    instructions: tuple[str, ...]
    cores: int
    caches: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}, {' '.join(self.instructions) or 'no wide instructions known'}"


INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
    "i8mm": "I8MM",
}
"""What matrix libraries ask for, by the names of /proc/cpuinfo (x86 above, ARM below)."""


@functools.cache
def processor() -> Processor:
    """The processor as it names itself; hypervisors hide models, so its family is told too."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model')})"
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    return Processor(
        vendor=facts.get("vendor_id", facts.get("CPU implementer", "unknown")),
        name=name,
        instructions=tuple(label for flag, label in INSTRUCTIONS.items() if flag in flags),
        cores=usable_cores(),
        caches=tuple(_caches()),
    )


def _caches() -> Iterator[str]:
    """Data caches of the first core, as in "L2 1024K"."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (folder / f).read_text().strip() for f in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            yield f"L{level} {size}"


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


def clock() -> float:
    """Processor time of this process on one thread (other jobs disturb it less), else wall-clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def read_rate() -> float:
    """Bytes a second when reading 256 MB once."""
    buffer = torch.ones(64_000_000)
    return 4 * buffer.numel() / best_seconds(buffer.sum)


def copy_rate() -> float:
    """Bytes a second, read and written, when copying 256 MB."""
    source = torch.ones(64_000_000)
    target = torch.empty_like(source)
    return 8 * source.numel() / best_seconds(lambda: target.copy_(source))
