"""Partially observed worlds: certified bounds in a given time, beside published and measured ones.

    python benchmarks/pomdp.py [--seconds 60] [--worlds hallway,hallway2,...] [--seed 0] [--out FILE]

Tiger is solved to 1e-6 and its time is the median of 11. The others get `--seconds` of one core
each, compilation done before on Tiger. "SARSOP" is the C++ program given 60 s on the same files, on
another day and another machine's load: a guide to what is good, not a race. The worlds are built
from the rules in the papers; `tagavoid` has the four odd rows of the file that others use.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from machine import description
from plaudit.mdp.partial import (
    POMDP,
    blind_bound,
    fast_informed_bound,
    policy_graph,
    qmdp_bound,
    solve_pomdp,
)
from plaudit.mdp.worlds.partial import PARTIAL_WORLDS
from plaudit.records.files import write_text

SARSOP: dict[str, tuple[float, float]] = {
    "hallway": (0.990, 1.209),
    "hallway2": (0.343, 0.908),
    "tagavoid": (-6.201, -1.829),
    "rocksample": (21.11, 24.66),
}
"""[lower, upper] of C++ SARSOP after 60 s."""

TIGER = 19.371368375


def simple_bounds(pomdp: POMDP) -> tuple[float, float, float]:
    """Blind, fast informed and QMDP at the initial belief."""
    alphas = (blind_bound(pomdp), fast_informed_bound(pomdp), qmdp_bound(pomdp))
    blind, informed, qmdp = (float((found @ pomdp.initial).max()) for found in alphas)
    return blind, informed, qmdp


def tiger_lines() -> list[str]:
    pomdp = PARTIAL_WORLDS["tiger"]()
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        found = solve_pomdp(pomdp, tol=1e-6)
        times.append(time.perf_counter() - begin)
    blind, informed, qmdp = simple_bounds(pomdp)
    controller = policy_graph(pomdp, found)
    exact = float(controller.value(pomdp)[controller.start] @ pomdp.initial)
    return [
        f"Tiger: [{found.lower:.9f}, {found.upper:.9f}] (known {TIGER}) in "
        f"{1000 * statistics.median(times[1:]):.1f} ms, {len(found.actions)} α-vectors; controller of "
        f"{len(controller.actions)} nodes worth {exact:.9f}; blind {blind:.3f}, fast informed "
        f"{informed:.3f}, QMDP {qmdp:.3f}",
    ]


def world_line(name: str, seconds: float, seed: int) -> str:
    pomdp = PARTIAL_WORLDS[name]()
    _, informed, qmdp = simple_bounds(pomdp)
    found = solve_pomdp(pomdp, seconds=seconds, seed=seed)
    known = SARSOP.get(name)
    peer = f"[{known[0]:.3f}, {known[1]:.3f}]" if known else "–"
    ratio = f"{100 * (found.lower - known[0]) / abs(known[0]):+.1f} %" if known else "–"
    return (
        f"| {name} | {pomdp.num_states} | {pomdp.num_actions} | {pomdp.num_observations} "
        f"| [{found.lower:.4f}, {found.upper:.4f}] | {peer} | {ratio} | {informed:.3f} | {qmdp:.3f} "
        f"| {len(found.actions)} | {found.nodes} | {found.trials} | {found.trace[-1, 0]:.1f} |"
    )


def report(names: list[str], seconds: float, seed: int) -> str:
    lines = ["# Partially observed worlds", "", description(), "", *tiger_lines(), ""]
    lines += [
        "| world | S | A | Ω | bounds | SARSOP, 60 s | lower, against it | fast informed | QMDP "
        "| α-vectors | beliefs | trials | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        lines.append(world_line(name, seconds, seed))
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--worlds", default=",".join(SARSOP))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = report(options.worlds.split(","), options.seconds, options.seed)
    print(text)
    if options.out is not None:
        write_text(options.out, text)


if __name__ == "__main__":
    main()
