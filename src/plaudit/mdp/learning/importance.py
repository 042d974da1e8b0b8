"""Off-policy Monte Carlo prediction: one policy is valued from the episodes of another.

Each return is weighted by how much likelier the policy makes what was done after it,
ρ_t = Π_{k≥t} π(A_k|S_k) / b(A_k|S_k). First visits only, so that the ordinary average is unbiased.
Source: Sutton & Barto 2018, sections 5.5, 5.6 and 5.9.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.compiled import compiled
from plaudit.mdp.learning.episodes import (
    Acting,
    Run,
    acting_in,
    empty_episode,
    next_episode,
    predicted,
    record,
    run_of,
    totals,
)
from plaudit.mdp.learning.learned import Floats, Predicted, Weighted
from plaudit.mdp.learning.monte_carlo import first_times, update
from plaudit.mdp.model import MDP, policy_rows
from plaudit.records.errors import UserError


def ordinary_importance_sampling(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    *,
    num_episodes: int,
    seed: int = 0,
    start: Predicted | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of `policy` from episodes of `behaviour`: the plain average of ρ G.

    V(s) = Σ ρ_t G_t / n(s) over the first visits. Unbiased; its variance can be infinite.
    policy, behaviour: [S] actions or [S, A] probabilities; behaviour must take whatever policy
    does, else UserError names the state and action. start: an earlier result to go on from.
    Source: Sutton & Barto 2018, equation 5.5.
    """
    acting, ratio = acting_in(mdp, behaviour), ratios(mdp, policy, behaviour)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=None,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _ordinary(acting, ratio, run), start)


def per_decision_importance_sampling(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    *,
    num_episodes: int,
    seed: int = 0,
    start: Predicted | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """As `ordinary_importance_sampling`, each reward weighted only by the choices before it.

    G_t = ρ_t (R_{t+1} + γ G_{t+1}) with the ratio ρ_t of step t alone; V(s) is the plain average.
    Unbiased, of less variance as a rule.
    Source: Precup, Sutton & Singh 2000; Sutton & Barto 2018, section 5.9.
    """
    acting, ratio = acting_in(mdp, behaviour), ratios(mdp, policy, behaviour)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=None,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _per_decision(acting, ratio, run), start)


def weighted_importance_sampling(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    *,
    num_episodes: int,
    seed: int = 0,
    start: Weighted | None = None,
    trace_every: int | None = None,
) -> Weighted:
    """As `ordinary_importance_sampling`, the returns averaged by their weights.

    V(s) = Σ ρ_t G_t / Σ ρ_t over the first visits (0 as long as every ρ was 0). Biased, consistent,
    of finite variance wherever returns are bounded.
    Source: Sutton & Barto 2018, equations 5.6 to 5.8.
    """
    acting, ratio = acting_in(mdp, behaviour), ratios(mdp, policy, behaviour)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=None,
        start=start,
        trace_every=trace_every,
    )
    weight = np.zeros(run.value.size) if start is None else start.weight.copy()
    steps, trace = totals(run, _weighted(acting, ratio, weight, run), start)
    done = run.done + run.num_episodes
    return Weighted(run.value, run.counts, done, steps, run.rng, trace, weight)


def ratios(mdp: MDP, policy: ArrayLike, behaviour: ArrayLike) -> Floats:
    """π(a|s) / b(a|s) [S, A], 0 where neither acts; UserError where only π does."""
    target, acted = policy_rows(mdp, policy), policy_rows(mdp, behaviour)
    alone = np.argwhere((target > 0) & (acted <= 0) & ~mdp.terminal[:, None])
    if alone.size:
        s, a = alone[0]
        raise UserError(
            f"behaviour: state {s}, action {a} has probability 0, but the policy takes it; "
            "expected more than 0 wherever the policy acts"
        )
    return np.divide(target, acted, out=np.zeros(target.shape), where=acted > 0)


@compiled
def _ordinary(acting: Acting, ratio: Floats, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    met = np.full(run.value.size, -1)
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        first = first_times(episode, met, number)
        g, weight = 0.0, 1.0
        for t in range(episode.length - 1, -1, -1):
            state = episode.states[t]
            g = episode.rewards[t] + acting.gamma * g
            weight *= ratio[state, episode.actions[t]]
            if first[t]:
                update(run, state, weight * g, 0.0)
        record(run, number)
    return num_steps


@compiled
def _per_decision(acting: Acting, ratio: Floats, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    met = np.full(run.value.size, -1)
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        first, g = first_times(episode, met, number), 0.0
        for t in range(episode.length - 1, -1, -1):
            state = episode.states[t]
            g = ratio[state, episode.actions[t]] * (episode.rewards[t] + acting.gamma * g)
            if first[t]:
                update(run, state, g, 0.0)
        record(run, number)
    return num_steps


@compiled
def _weighted(acting: Acting, ratio: Floats, weight_sum: Floats, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    met = np.full(run.value.size, -1)
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        first = first_times(episode, met, number)
        g, weight = 0.0, 1.0
        for t in range(episode.length - 1, -1, -1):
            state = episode.states[t]
            g = episode.rewards[t] + acting.gamma * g
            weight *= ratio[state, episode.actions[t]]
            if first[t]:
                run.counts[state] += 1
            if first[t] and weight > 0.0:
                weight_sum[state] += weight
                run.value[state] += weight / weight_sum[state] * (g - run.value[state])
        record(run, number)
    return num_steps
