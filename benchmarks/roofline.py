"""What this machine can do at most: matrix products and memory, for the floors of other benchmarks.

    python benchmarks/roofline.py [--json FILE] [--out FILE]

Products of [rows, K] with [M, K] transposed, on one thread and on all: float32 by torch (MKL),
by oneDNN, and by oneDNN with weights packed beforehand; bfloat16 by torch and packed; int8 by
oneDNN (inputs quantised beforehand, one scale for each output). Memory: reading and copying 256 MB.
With a CUDA device its products and copies too. The Markdown file keeps a section for each
processor, and a run rewrites its own processor's alone. Takes about 20 seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from machine import best_seconds, copy_rate, description, processor, read_rate
from plaudit.models.sampling.packed import Packed, can_pack
from plaudit.ops.products import onednn_is_faster
from plaudit.records.files import write_text
from plaudit.records.system import usable_cores

RESULTS = Path(__file__).parent / "results" / "roofline.md"
SHAPES = ((256, 768), (576, 1536), (576, 49152))
"""(K, M): a small model's layer, SmolLM2's feed-forward layer and its head."""
ROWS = (1, 16, 64, 512)
LEAST_SECONDS = 2e-3
"""A timing repeats a product until it lasts about so long."""


def products(width: int, num_out: int, rows: int) -> dict[str, Callable[[], Tensor]]:
    """One product by every way there is on a CPU."""
    weight, x = torch.randn(num_out, width), torch.randn(rows, width)
    narrow, narrow_x = weight.bfloat16(), x.bfloat16()
    found: dict[str, Callable[[], Tensor]] = {
        "float32 torch": lambda: F.linear(x, weight),
        "bfloat16 torch": lambda: F.linear(narrow_x, narrow),
    }
    if can_pack(weight):
        multiply: Any = torch.ops.mkldnn._linear_pointwise
        packed = Packed(weight)
        narrow_packed = torch.ops.mkldnn._reorder_linear_weight(narrow, 64)
        found["float32 oneDNN"] = lambda: multiply(x, weight, None, "none", [], "")
        found["float32 packed"] = lambda: packed(x)
        found["bfloat16 packed"] = lambda: multiply(narrow_x, narrow_packed, None, "none", [], "")
    if hasattr(torch.ops.onednn, "qlinear_pointwise"):
        found["int8 oneDNN"] = _int8(x, weight)
    return found


def _int8(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    """8-bit inputs with one scale and zero point, 8-bit weights with a scale for each output."""
    scale = weight.abs().amax(1) / 127
    packed = torch.ops.onednn.qlinear_prepack((weight / scale[:, None]).round().char(), None)
    zero = torch.zeros(len(weight), dtype=torch.long)
    x_scale = float(x.max() - x.min()) / 255
    x_zero = round(-float(x.min()) / x_scale)
    qx = (x / x_scale + x_zero).round().clamp(0, 255).byte()
    multiply: Any = torch.ops.onednn.qlinear_pointwise.default
    of_x, of_w, out = (qx, x_scale, x_zero), (packed, scale, zero), (1.0, 0, torch.float32)

    def run() -> Tensor:
        y: Tensor = multiply(*of_x, *of_w, None, *out, "none", [], "")
        return y

    exact = F.linear(x, weight)
    if float((run() - exact).norm() / exact.norm()) > 0.05:
        raise SystemExit("int8 products are not the float32 products: rates would mean nothing")
    return run


def rate(call: Callable[[], object], operations: int, *, wait: Callable[[], object]) -> float:
    """Operations a second, a billion as one."""
    once = best_seconds(lambda: (call(), wait()), repeats=1)
    times = max(1, round(LEAST_SECONDS / once))

    def run() -> None:
        for _ in range(times):
            call()
        wait()

    repeats = 1 if once > 0.05 else 3
    return operations * times / min(once * times, best_seconds(run, repeats=repeats)) / 1e9


WAYS = (
    "float32 torch",
    "float32 oneDNN",
    "float32 packed",
    "bfloat16 torch",
    "bfloat16 packed",
    "int8 oneDNN",
)


@torch.no_grad()
def on_threads(num: int) -> dict[str, Any]:
    torch.set_num_threads(num)
    rates = []
    for width, num_out in SHAPES:
        for rows in ROWS:
            ways = products(width, num_out, rows)
            operations = 2 * width * num_out * rows
            found = {w: rate(call, operations, wait=lambda: None) for w, call in ways.items()}
            rates.append({"rows": rows, "width": width, "num_out": num_out, "gflops": found})
    return {"threads": num, "read": read_rate(), "copy": copy_rate(), "products": rates}


@torch.no_grad()
def on_cuda() -> dict[str, Any]:
    """The same products on the first CUDA device, float32 without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = []
    for width, num_out in SHAPES:
        for rows in ROWS:
            operations, found = 2 * width * num_out * rows, {}
            for name, dtype in (
                ("float32 torch", torch.float32),
                ("bfloat16 torch", torch.bfloat16),
            ):
                x = torch.randn(rows, width, device="cuda", dtype=dtype)
                weight = torch.randn(num_out, width, device="cuda", dtype=dtype)
                found[name] = rate(
                    lambda x=x, weight=weight: F.linear(x, weight),
                    operations,
                    wait=torch.cuda.synchronize,
                )
            rates.append({"rows": rows, "width": width, "num_out": num_out, "gflops": found})
    source = torch.ones(256_000_000, device="cuda")
    target = torch.empty_like(source)
    seconds = best_seconds(lambda: (target.copy_(source), torch.cuda.synchronize()))
    copied = 8 * source.numel() / seconds
    return {"device": torch.cuda.get_device_name(), "copy": copied, "products": rates}


def table(measured: dict[str, Any]) -> list[str]:
    ways = [w for w in WAYS if any(w in p["gflops"] for p in measured["products"])]
    lines = [f"| rows × K → M | {' | '.join(ways)} |", f"|{'---|' * (len(ways) + 1)}"]
    for p in measured["products"]:
        cells = [f"{p['gflops'][w]:,.0f}" if w in p["gflops"] else "–" for w in ways]
        lines.append(f"| {p['rows']} × {p['width']} → {p['num_out']} | {' | '.join(cells)} |")
    return lines


def section(found: dict[str, Any]) -> str:
    """This processor's part of the page."""
    own = processor()
    lines = [
        f"## {own.name}",
        "",
        f"{description()}. Vendor {own.vendor}; caches {', '.join(own.caches) or 'unknown'}. "
        f"Plaudit's float32 products go to {'oneDNN' if onednn_is_faster() else 'torch'}.",
    ]
    for measured in found["cpu"]:
        read, copy = measured["read"] / 1e9, measured["copy"] / 1e9
        lines += [
            "",
            f"{measured['threads']} thread(s): reads {read:.1f} GB/s, copies {copy:.1f} GB/s "
            "(read and written). Products in GFLOP/s:",
            "",
            *table(measured),
        ]
    if "cuda" in found:
        cuda = found["cuda"]
        lines += ["", f"{cuda['device']}: copies {cuda['copy'] / 1e9:,.0f} GB/s.", "", *table(cuda)]
    return "\n".join(lines)


INTRODUCTION = (
    "# What machines can do at most\n\nThe least time of a few runs. How it is measured: "
    "`benchmarks/roofline.py`, which rewrites the section of the processor that it runs on."
)


def page(old: str, own: str) -> str:
    """The page with this processor's section replaced or added, the others as they were."""
    sections = old.split("\n## ")[1:]
    title = own.splitlines()[0].removeprefix("## ")
    others = [f"## {s.strip()}" for s in sections if s.splitlines()[0] != title]
    return "\n\n".join([INTRODUCTION, *sorted([own, *others])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write every figure to this file too")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    found: dict[str, Any] = {"processor": asdict(processor())}
    found["cpu"] = [on_threads(n) for n in sorted({1, usable_cores()})]
    if torch.cuda.is_available():
        found["cuda"] = on_cuda()
    own = section(found)
    print(own)
    old = chosen.out.read_text(encoding="utf-8") if chosen.out.exists() else ""
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, page(old, own))
    if chosen.json is not None:
        write_text(chosen.json, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
