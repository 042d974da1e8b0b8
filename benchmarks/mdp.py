"""Finite worlds: `solve(method="auto")` beside QuantEcon, mdpsolver, pymdptoolbox; Q-learning's rate.

    python benchmarks/mdp.py [--peer quantecon,mdpsolver,pymdptoolbox] [--repeats R] [--threads T]
                             [--large] [--out FILE]

Peers are installed apart: pip install quantecon mdpsolver pymdptoolbox. All are given the same world
and asked for the same error of the value, 1e-6 (QuantEcon's `epsilon` is twice that by its
definition; mdpsolver's `tolerance` bounds no error, so that the error reached is what compares);
compilation is done before, on a small world. Times are medians of wall-clock seconds, each way in
turn (value iteration of the peer once). mdpsolver's models keep their last value and begin the next
`solve` from it: each solution is by a new model, and its construction from lists is counted apart;
the second solution by the same model, which has little left to do, is shown too. "error" is the
greatest difference from our solution at 1e-9, so that a fast wrong answer would show. `--large` adds ten million states in a process of their own, with its memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, set_num_threads
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


def precise_value(mdp: MDP) -> np.ndarray:
    """Our value to 1e-9, or as near as floats can prove."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return solve(mdp, tol=1e-9).value


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
    truth = precise_value(mdp)
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


# --- mdpsolver


class Lists(NamedTuple):
    """A world as mdpsolver takes it: [S][A] of rewards, and of lists of chances and next states."""

    rewards: list[Any]
    chances: list[Any]
    following: list[Any]


def lists_of(mdp: MDP) -> Lists:
    rows = mdp.transition
    begin = rows.indptr.tolist()

    def nested(flat: list[Any]) -> list[Any]:
        cut = [flat[i:j] for i, j in pairwise(begin)]
        return [cut[i : i + mdp.num_actions] for i in range(0, len(cut), mdp.num_actions)]

    return Lists(mdp.reward.tolist(), nested(rows.data.tolist()), nested(rows.indices.tolist()))


def mdpsolver_model(lists: Lists, gamma: float) -> Any:
    import mdpsolver

    model = mdpsolver.model()
    model.mdp(
        discount=gamma,
        rewards=lists.rewards,
        tranMatProbs=lists.chances,
        tranMatColumns=lists.following,
    )
    return model


def against_mdpsolver(
    name: str, mdp: MDP, repeats: int, threads: int
) -> tuple[list[str], list[str]]:
    """Rows for solutions alone, and for construction and solution, with ours in turn."""
    taken: dict[str, list[float]] = {}
    model: Any = None

    def timed(what: str, call: Callable[[], Any]) -> Any:
        spent, result = seconds(call)
        taken.setdefault(what, []).append(spent)
        return result

    settings = {"algorithm": "mpi", "tolerance": TOLERANCE, "parallel": threads > 1}
    for _ in range(repeats):
        rows, reward = sparse.csr_array(mdp.transition), np.array(mdp.reward)
        world_of = timed("ours made", partial(MDP, rows, reward, mdp.gamma))
        timed("ours", partial(solve, world_of, tol=TOLERANCE))
        lists = timed("lists", partial(lists_of, mdp))
        model = timed("made", partial(mdpsolver_model, lists, mdp.gamma))
        timed("new", partial(model.solve, **settings))
        first = np.array(model.getValueVector())
        timed("again", partial(model.solve, **settings))
        del lists
    median = {what: statistics.median(spent) for what, spent in taken.items()}
    truth = precise_value(mdp)
    error = float(np.abs(first - truth).max())
    again = float(np.abs(np.array(model.getValueVector()) - truth).max())
    alone = [
        f"| {name} | mdpsolver mpi | {median['new']:.3f} | | {error:.1e} "
        f"| {median['new'] / median['ours']:.1f} |",
        f"| {name} | mdpsolver mpi, again from its own answer | {median['again']:.3f} | | {again:.1e} "
        f"| {median['again'] / median['ours']:.1f} |",
    ]
    ours = median["ours made"] + median["ours"]
    theirs = median["made"] + median["new"]
    both = [
        f"| {name} | Plaudit, world and solution | {ours:.3f} | 1 |",
        f"| {name} | mdpsolver, from lists | {theirs:.3f} | {theirs / ours:.1f} |",
        f"| {name} | mdpsolver, from the arrays | {theirs + median['lists']:.3f} "
        f"| {(theirs + median['lists']) / ours:.1f} |",
    ]
    print(*alone, *both, sep="\n", flush=True)
    return alone, both


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
    parser.add_argument("--peer", default="", help="any of quantecon,mdpsolver,pymdptoolbox")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=get_num_threads(), help="of every side")
    parser.add_argument("--large", action="store_true", help="ten million states besides")
    parser.add_argument("--large-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="where to write the tables (Markdown)")
    given = parser.parse_args()
    if given.large_alone:
        large()
        return
    peers = set(filter(None, given.peer.split(",")))
    if peers - {"quantecon", "mdpsolver", "pymdptoolbox"}:
        parser.error(f"no peer {given.peer!r}; expected quantecon,mdpsolver,pymdptoolbox")
    set_num_threads(given.threads)  # and OMP_NUM_THREADS is read by mdpsolver as it is loaded
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
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
    made: list[str] = []
    for name, make in worlds.items():
        mdp = make()
        text += against_quantecon(name, mdp, given.repeats, "quantecon" in peers)
        if "mdpsolver" in peers:
            alone, both = against_mdpsolver(name, mdp, given.repeats, given.threads)
            text += alone
            made += both
    text += ["", "## Construction and solution", "", "| world | solver | seconds | times ours |"]
    text += [
        "|---|---|---|---|",
        *made,
        *against_pymdptoolbox(given.repeats, "pymdptoolbox" in peers),
    ]
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
