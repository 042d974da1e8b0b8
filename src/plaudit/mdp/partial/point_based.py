"""Point-based value iteration with certified bounds from both sides.

The lower bound is a set of α-vectors, each the value of a plan; the upper bound a sawtooth over
beliefs under the fast informed bound. Trials walk from the initial belief to where the bounds are
far apart for their depth, and back both up on the return, as in HSVI2; α-vectors that are the best
at no expanded belief are dropped, as in SARSOP. Of three trials two are shallow and take the
observation of most excess; the third is deep and draws it, which finds long plans sooner.

Sources: Smith & Simmons 2005 (HSVI2); Kurniawati, Hsu & Lee 2008 (SARSOP).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.checks import check_distribution, frozen
from plaudit.mdp.partial.bounds import EPS, blind_bound, discounted, fast_informed_bound
from plaudit.mdp.partial.model import POMDP, Floats
from plaudit.mdp.partial.pruning import drop_alphas, drop_points, move_corners
from plaudit.mdp.partial.search import SAME, found_node, refresh_lower, trial
from plaudit.mdp.partial.tables import Ints, Table, table_of
from plaudit.mdp.partial.tree import ALPHAS, PLANS, POINTS, Tree, empty_tree, grown, room_for
from plaudit.records.errors import UserError

ROOT = 0
"""The node of the initial belief."""

MAX_DEPTH = 1000
"""Steps of one trial at most; a deeper one would still be sound."""

SHALLOW, DEEP = 0.5, 0.02
"""A trial aims at this share of the gap at the root."""

LEAST = 0.01
"""A backup is kept if it gains this share of what its trial aims at, times 1 - γ."""

STALLED = 60
"""Trials in a row that change nothing: floats can do no better."""

INFORMED_TOL = 1e-3
"""The fast informed bound is only where the upper bound begins."""


@dataclass(frozen=True, eq=False)
class PartialSolution:
    """A policy for every belief, with proof of how good it can be and how good it is.

    alphas [N, S] and actions [N]: at belief b the lower bound is max_n Σ_s b(s) α_n(s), and the
    policy takes the action of the n that attains it. lower ≤ V*(initial) ≤ upper, rounding
    included. trace [trials + 1, 3]: seconds since the start, lower and upper after each trial.
    nodes: beliefs met. method: "point-based".
    plans [N]: the plan of each α-vector; plan m does plan_actions [M] and, on observation o, goes
    on as plan_successors [M, Ω] (see `plan_graph`).
    """

    alphas: Floats
    actions: Ints
    lower: float
    upper: float
    trace: Floats
    trials: int
    nodes: int
    method: str
    plans: Ints
    plan_actions: Ints
    plan_successors: Ints

    @property
    def gap(self) -> float:
        """upper - lower at the initial belief."""
        return self.upper - self.lower

    def value(self, belief: ArrayLike) -> float:
        """The lower bound at a belief [S]."""
        return float((self.alphas @ self._belief(belief)).max())

    def action(self, belief: ArrayLike) -> int:
        """The policy's action at a belief [S]."""
        return int(self.actions[(self.alphas @ self._belief(belief)).argmax()])

    def _belief(self, belief: ArrayLike) -> Floats:
        return check_distribution(belief, self.alphas.shape[1], "belief")

    def __repr__(self) -> str:
        return (
            f"PartialSolution([{self.lower:.9g}, {self.upper:.9g}], {len(self.actions)} α-vectors, "
            f"{self.trials} trials)"
        )


def solve_pomdp(
    pomdp: POMDP,
    tol: float = 1e-6,
    seconds: float | None = None,
    seed: int = 0,
    *,
    num_trials: int | None = None,
) -> PartialSolution:
    """Bounds lower ≤ V*(b0) ≤ upper and the policy that proves the lower one, from belief b0 on.

    V*(b) = max_a [Σ_s b(s) R(s, a) + γ Σ_o P(o|b, a) V*(b_ao)], for γ < 1.
    Ends when upper - lower ≤ tol, after `seconds` (looked at between trials) or `num_trials`; where
    none of these comes, when floats can do no better. `seed` draws the observations that deep
    trials follow. Every belief met is kept: about one GiB for a minute on large worlds.
    Errors: γ = 1, a tolerance or limit that is not positive.
    Source: Smith & Simmons 2005; Kurniawati, Hsu & Lee 2008.
    Check: Tiger from the even belief has V* = 19.371368375.
    """
    discounted(pomdp)
    for name, given in (("tol", tol), ("seconds", seconds), ("num_trials", num_trials)):
        if given is not None and not given > 0:
            raise UserError(f"{name}: {given}; expected a number above 0")
    search = _Search(pomdp, tol, seed)
    while not search.finished(seconds, num_trials):
        search.walk()
    return search.answer()


class _Search:
    """The state of one solve: the tree, and what each trial made of the bounds."""

    def __init__(self, pomdp: POMDP, tol: float, seed: int) -> None:
        self.begun = time.perf_counter()
        self.table, self.gamma, self.tol = table_of(pomdp), pomdp.gamma, tol
        self.tree = _rooted(pomdp)
        self.slack_low, self.slack_high = _slack(self.table, self.tree)
        self.rng = np.random.default_rng(seed)
        self.path: Ints = np.empty(MAX_DEPTH, np.int64)
        self.trace: list[tuple[float, float, float]] = []
        self.trials = self.still = 0
        self.kept_alphas, self.kept_points = int(self.tree.used[ALPHAS]), 0
        self.record()

    def record(self) -> None:
        refresh_lower(self.tree, ROOT)
        low = float(self.tree.lower[ROOT]) - self.slack_low
        high = float(self.tree.upper[ROOT]) + self.slack_high
        if self.trace:
            low, high = max(low, self.trace[-1][1]), min(high, self.trace[-1][2])
        self.trace.append((time.perf_counter() - self.begun, low, high))

    @property
    def gap(self) -> float:
        return self.trace[-1][2] - self.trace[-1][1]

    def finished(self, seconds: float | None, num_trials: int | None) -> bool:
        return (
            self.gap <= self.tol
            or (seconds is not None and self.trace[-1][0] >= seconds)
            or (num_trials is not None and self.trials >= num_trials)
            or self.still >= STALLED
        )

    def walk(self) -> None:
        """One trial, and the housekeeping that it makes necessary."""
        deep = self.trials % 3 == 2
        width = max(self.tol / 2, (DEEP if deep else SHALLOW) * self.gap)
        least = LEAST * width * (1 - self.gamma)
        draws = self.rng.random(MAX_DEPTH) if deep else np.empty(0)
        before = self.tree.used.copy()
        _, room = trial(self.tree, self.table, ROOT, width, least, draws, self.path)
        self.trials += 1
        if not room:
            self.tree = grown(self.tree, _tight(self.tree))
        self.tidy()
        low, high = self.trace[-1][1:]
        self.record()
        same = bool((before == self.tree.used).all()) and (low, high) == self.trace[-1][1:]
        self.still = self.still + 1 if same and room else 0

    def tidy(self) -> None:
        """Drop α-vectors and points once there are many new ones; take over corner values."""
        tree = self.tree
        if tree.used[ALPHAS] > 1.3 * self.kept_alphas + 50:
            drop_alphas(tree, ROOT)
            self.kept_alphas = int(tree.used[ALPHAS])
        if (tree.corner_next < tree.corner).any():
            move_corners(tree)
        if tree.used[POINTS] > 1.5 * self.kept_points + 100:
            drop_points(tree)
            self.kept_points = int(tree.used[POINTS])

    def answer(self) -> PartialSolution:
        drop_alphas(self.tree, ROOT)
        num_alphas, num_plans = (int(self.tree.used[kind]) for kind in (ALPHAS, PLANS))
        return PartialSolution(
            alphas=frozen(self.tree.alphas[:num_alphas].copy()),
            actions=frozen(self.tree.action[:num_alphas].copy()),
            lower=self.trace[-1][1],
            upper=self.trace[-1][2],
            trace=np.array(self.trace),
            trials=self.trials,
            nodes=int(self.tree.used[0]),
            method="point-based",
            plans=frozen(self.tree.plan[:num_alphas].copy()),
            plan_actions=frozen(self.tree.plan_action[:num_plans].copy()),
            plan_successors=frozen(self.tree.plan_next[:num_plans].copy()),
        )


def _rooted(pomdp: POMDP) -> Tree:
    """A tree of the initial belief alone, under the fast informed and blind bounds."""
    blind = blind_bound(pomdp)
    informed = fast_informed_bound(pomdp, tol=INFORMED_TOL)
    tree = empty_tree(
        pomdp.num_states, pomdp.num_observations, blind, np.arange(len(blind)), informed
    )
    support = np.flatnonzero(pomdp.initial)
    tree.states[: support.size] = support
    tree.probability[: support.size] = pomdp.initial[support]
    found_node(tree, 0, support.size)
    return tree


def _tight(tree: Tree) -> list[int]:
    """The arrays to double: those more than half full, or the fullest."""
    share = {kind: float(tree.used[kind]) / room for kind, room in room_for(tree).items()}
    return [kind for kind in share if share[kind] > 0.5] or [max(share, key=lambda k: share[k])]


def _slack(table: Table, tree: Tree) -> tuple[float, float]:
    """What rounding can add up to, discounted over all steps, in the lower and upper bound.

    One backup rounds sums of `terms` products up to the greatest value; the upper bound also takes
    beliefs for one that differ by up to `SAME` in each entry.
    """
    scale = float(
        max(np.abs(tree.informed).max(), np.abs(tree.alphas[: tree.informed.shape[0]]).max())
    )
    longest = np.diff(table.t_ptr).max(initial=0) + np.diff(table.o_ptr).max(initial=0)
    support = table.reward.shape[0]
    rounding = (float(longest) + support**0.5 + 8) * EPS * scale / (1 - table.gamma)
    return rounding, rounding + support * SAME * scale / (1 - table.gamma)
