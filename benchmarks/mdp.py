"""Finite worlds: `solve(method="auto")` beside QuantEcon and pymdptoolbox, and Q-learning's rate.

    python benchmarks/mdp.py [--peer quantecon,pymdptoolbox] [--repeats R] [--large] [--out FILE]

Peers are installed apart: pip install quantecon pymdptoolbox. All are given the same sparse arrays
and asked for the same error of the value, 1e-6 (QuantEcon's `epsilon` is twice that by its
definition); compilation is done before, on a small world. Times are medians of wall-clock seconds,
each way in turn (value iteration
of the peer once). "error" is the greatest difference from our solution at 1e-9, so that a fast wrong
answer would show. `--large` adds ten million states in a process of their own, with its memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from machine import description
from plaudit.mdp import MDP
from plaudit.mdp.learning import q_learning
from plaudit.mdp.planning import solve
from plaudit.mdp.planning.backups import optimal_backup, rows_of
from plaudit.mdp.worlds import world
from plaudit.records.files import write_text

TOLERANCE = 1e-6


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock time of a call, and what it returned."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def median_of(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, tuple[float, Any]]:
    """Each call's median time, the calls taken in turn, and its last result."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            taken, results[name] = seconds(call)
            times[name].append(taken)
    return {name: (statistics.median(taken), results[name]) for name, taken in times.items()}


# --- QuantEcon


def quantecon_problem(mdp: MDP) -> Any:
    from quantecon.markov import DiscreteDP

    pairs = np.arange(mdp.num_states * mdp.num_actions)
    state, action = np.divmod(pairs, mdp.num_actions)
    rows = sparse.csr_matrix(mdp.transition)
    problem = DiscreteDP(mdp.reward.ravel(), rows, mdp.gamma, state, action)
    problem.max_iter = 1_000_000
    return problem


def against_quantecon(name: str, mdp: MDP, repeats: int, peers: bool) -> list[str]:
    """One row of the table for each method of the peer, and ours."""
    calls: dict[str, Callable[[], Any]] = {"Plaudit auto": lambda: solve(mdp, tol=TOLERANCE)}
    if peers:
        problem = quantecon_problem(mdp)
        # Its policy iteration factors each policy's system: minutes on worlds of this size.
        solve_by = partial(problem.solve, epsilon=2 * TOLERANCE)
        name_of = "QuantEcon {}".format
        calls[name_of("modified_policy_iteration")] = partial(
            solve_by, method="modified_policy_iteration"
        )
    found = median_of(calls, repeats)
    if peers and mdp.num_states <= 100_000:  # seconds each: once
        by_value = {name_of("value_iteration"): partial(solve_by, method="value_iteration")}
        found |= median_of(by_value, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truth = solve(mdp, tol=1e-9).value
    ours = found["Plaudit auto"][0]
    lines = []
    for label, (taken, result) in found.items():
        value = result.value if label.startswith("Plaudit") else result.v
        rounds = result.iterations if label.startswith("Plaudit") else result.num_iter
        error = float(np.abs(value - truth).max())
        lines.append(
            f"| {name} | {label} | {taken:.3f} | {rounds} | {error:.1e} | {taken / ours:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


# --- pymdptoolbox


def against_pymdptoolbox(repeats: int, peers: bool) -> list[str]:
    """Ten thousand states as a list of sparse matrices, construction included."""
    mdp = world("random-sparse", num_states=10_000, num_actions=4, branching=5, seed=1, gamma=0.99)
    by_action = [sparse.csr_matrix(mdp.transition[a :: mdp.num_actions]) for a in range(4)]
    reward = np.array(mdp.reward)
    ours = median_of(
        {"ours": lambda: solve(MDP(by_action, reward, 0.99), tol=TOLERANCE)}, max(5, repeats)
    )["ours"][0]
    lines = [f"| 10,000 states | Plaudit, world and solution | {ours:.4f} | 1 |"]
    print(lines[-1], flush=True)
    if peers:
        taken, peer = seconds(lambda: pymdptoolbox_solution(by_action, reward))
        error = np.array(peer.V) - solve(mdp, tol=1e-9).value  # it stops by the span, unshifted
        lines.append(
            f"| 10,000 states | pymdptoolbox ValueIteration (off by {np.abs(error).max():.0f}, "
            f"all but {np.ptp(error):.0e} of it alike in every state) | {taken:.1f} "
            f"| {taken / ours:,.0f} |"
        )
        print(lines[-1], flush=True)
    return lines


def pymdptoolbox_solution(by_action: list[sparse.csr_matrix], reward: np.ndarray) -> Any:
    import mdptoolbox.mdp

    problem = mdptoolbox.mdp.ValueIteration(by_action, reward, 0.99, epsilon=TOLERANCE)
    problem.run()
    return problem


# --- how it grows


def sweep_costs(repeats: int) -> list[str]:
    """Nanoseconds of one backup of the whole world for each stored transition."""
    lines = []
    for num_states in (10_000, 100_000, 1_000_000):
        mdp = world("random-sparse", num_states=num_states, num_actions=4, branching=5, seed=0)
        rows = rows_of(mdp)
        value, out = np.random.default_rng(0).random(num_states), np.empty(num_states)
        action = np.empty(num_states, np.int64)
        optimal_backup(rows, value, out, action)
        taken = [
            seconds(partial(optimal_backup, rows, value, out, action))[0]
            for _ in range(5 * max(1, repeats))
        ]
        per = statistics.median(taken) / rows.data.size * 1e9
        lines.append(f"| {num_states:,} | {rows.data.size:,} | {per:.2f} |")
        print(lines[-1], flush=True)
    return lines


def large() -> None:
    """Ten million states, in this process; prints seconds and the peak of memory as JSON."""
    built, mdp = seconds(
        lambda: world("random-sparse", num_states=10_000_000, num_actions=4, branching=5, seed=0)
    )
    taken, solution = seconds(lambda: solve(mdp, tol=TOLERANCE))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    facts = {"built": built, "solved": taken, "bound": solution.bound, "peak": peak}
    print(json.dumps(facts))


# --- Q-learning


def q_learning_rates(repeats: int) -> list[str]:
    """Steps a second on FrozenLake 8×8: compiled on the table, and by stepping Gymnasium."""
    mdp = world("frozenlake-8x8")
    options: dict[str, Any] = {"alpha": 0.1, "epsilon": 0.1, "seed": 0}
    q_learning(mdp, num_steps=1000, **options)
    steps = 20_000_000
    taken = statistics.median(
        seconds(lambda: q_learning(mdp, num_steps=steps, **options))[0] for _ in range(repeats)
    )
    lines = [f"| Plaudit, compiled on the table | {steps / taken:,.0f} | 1 |"]
    print(lines[-1], flush=True)
    loop = 300_000
    slow = statistics.median(seconds(lambda: gymnasium_loop(loop))[0] for _ in range(repeats))
    lines.append(
        f"| a Python loop over Gymnasium | {loop / slow:,.0f} | {steps / taken * slow / loop:,.0f} |"
    )
    print(lines[-1], flush=True)
    return lines


def gymnasium_loop(num_steps: int) -> np.ndarray:
    """Q-learning as tutorials write it."""
    import gymnasium

    env = gymnasium.make("FrozenLake8x8-v1")
    rng = np.random.default_rng(0)
    q = np.zeros((64, 4))
    state, _ = env.reset(seed=0)
    for _ in range(num_steps):
        if rng.random() < 0.1:
            action = int(rng.integers(4))
        else:
            action = int(rng.choice(np.flatnonzero(q[state] == q[state].max())))
        following, reward, terminated, truncated, _ = env.step(action)
        target = reward + 0.99 * (0.0 if terminated else q[following].max())
        q[state, action] += 0.1 * (target - q[state, action])
        state = env.reset()[0] if terminated or truncated else following
    return q


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help="quantecon,pymdptoolbox or one of them")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="ten million states besides")
    parser.add_argument("--large-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="where to write the tables (Markdown)")
    given = parser.parse_args()
    if given.large_alone:
        large()
        return
    peers = set(filter(None, given.peer.split(",")))
    if peers - {"quantecon", "pymdptoolbox"}:
        parser.error(f"no peer {given.peer!r}; expected quantecon,pymdptoolbox")
    solve(world("random-sparse", num_states=500, num_actions=4, branching=5, seed=0), tol=1e-6)
    solve(world("noisy-grid", rows=20, columns=20, gamma=0.999), tol=1e-6)
    sparse_world = partial(world, "random-sparse", num_actions=4, branching=5, seed=0, gamma=0.99)
    worlds: dict[str, Callable[[], Any]] = {  # one at a time in memory
        "random sparse, 1,000,000 × 4 × 5, γ 0.99": partial(sparse_world, num_states=1_000_000),
        "random sparse, 100,000 × 4 × 5, γ 0.99": partial(sparse_world, num_states=100_000),
        "noisy grid 300 × 300, γ 0.999": partial(
            world, "noisy-grid", rows=300, columns=300, gamma=0.999
        ),
    }
    text = [
        "# Finite worlds",
        "",
        description(),
        "",
        f"## Error of the value at most {TOLERANCE:.0e}",
        "",
    ]
    text += [
        "| world | solver | seconds | rounds | error | times ours |",
        "|---|---|---|---|---|---|",
    ]
    for name, make in worlds.items():
        text += against_quantecon(name, make(), given.repeats, "quantecon" in peers)
    text += ["", "## Construction and solution", "", "| world | solver | seconds | times ours |"]
    text += ["|---|---|---|---|", *against_pymdptoolbox(given.repeats, "pymdptoolbox" in peers)]
    text += ["", "## One backup of the whole world", "", "| states | transitions | ns each |"]
    text += ["|---|---|---|", *sweep_costs(given.repeats)]
    text += [
        "",
        "## Q-learning on FrozenLake 8×8, one core",
        "",
        "| loop | steps a second | ratio |",
    ]
    text += ["|---|---|---|", *q_learning_rates(given.repeats)]
    if given.large:
        command = [sys.executable, __file__, "--large-alone"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        facts = json.loads(done.stdout.splitlines()[-1])
        text += [
            "",
            "## Ten million states × 4 × 5",
            "",
            f"World made in {facts['built']:.1f} s, solved in {facts['solved']:.1f} s to a bound of "
            f"{facts['bound']:.1e}; peak memory {facts['peak']:.2f} GiB.",
        ]
    text += ["", "How it is measured: `benchmarks/mdp.py`."]
    if given.out:
        write_text(given.out, "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
