"""TD(λ): credit handed back along a trace that fades, in the three forms that people use, and the
λ-return that they approach.

The traces differ where a state is met again before its trace has faded: accumulating adds to it,
replacing sets it to one, dutch does what makes the updates exactly those of the online λ-return.
Only states whose trace is above `FAINT` are kept, so a step costs what is alive, not S.
An episode that `max_steps` cuts bootstraps from the state in which it was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.episodes import (
    Acting,
    Run,
    acted,
    acting_in,
    check_fraction,
    check_step_size,
    empty_episode,
    goes_on,
    next_episode,
    predicted,
    record,
    run_of,
)
from plaudit.mdp.learning.learned import Floats, Ints, Predicted
from plaudit.mdp.learning.monte_carlo import update
from plaudit.mdp.learning.sampling import first_state
from plaudit.mdp.model import MDP, MRP

FAINT = 1e-20
"""A trace below this is dropped: it would move a value by less than its last bit."""


class Traces(NamedTuple):
    """z [S], and the states (the first `num_alive[0]` of `alive`) in which it is not 0."""

    z: Floats
    alive: Ints
    num_alive: Ints


def td_lambda_accumulating(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    lam: float,
    num_episodes: int,
    alpha: float = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy by TD(λ) with accumulating traces.

    z ← γλz, z(S_t) ← z(S_t) + 1, V ← V + α δ_t z with δ_t = R_{t+1} + γV(S_{t+1}) - V(S_t).
    lam 0 is TD(0). A state met many times in an episode can hold a trace above 1/α and diverge.
    Other arguments as in `td_prediction`.
    Source: Sutton 1988; Sutton & Barto 2018, section 12.2.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    run = run_of(acting, num_episodes, seed, start_value, start, trace_every)
    return _learned(_accumulating, acting, lam, alpha, run, start)


def td_lambda_replacing(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    lam: float,
    num_episodes: int,
    alpha: float = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy by TD(λ) with replacing traces.

    z ← γλz, z(S_t) ← 1, V ← V + α δ_t z. Arguments as in `td_lambda_accumulating`.
    Source: Singh & Sutton 1996; Sutton & Barto 2018, section 12.5.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    run = run_of(acting, num_episodes, seed, start_value, start, trace_every)
    return _learned(_replacing, acting, lam, alpha, run, start)


def true_online_td_lambda(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    lam: float,
    num_episodes: int,
    alpha: float = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy by true online TD(λ), with dutch traces.

    z ← γλz, z(S_t) ← (1 - α) γλz(S_t) + 1 in S_t alone;
    V ← V + α (δ_t + V(S_t) - V_old) z - α (V(S_t) - V_old) in S_t, V_old: V(S_t) before the last
    update. The values are those of the online λ-return algorithm, which recomputes all. Arguments
    as in `td_lambda_accumulating`.
    Source: van Seijen et al. 2016; Sutton & Barto 2018, section 12.5.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    run = run_of(acting, num_episodes, seed, start_value, start, trace_every)
    return _learned(_dutch, acting, lam, alpha, run, start)


def offline_lambda_return(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    lam: float,
    num_episodes: int,
    alpha: float = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy by the offline λ-return algorithm: nothing moves until the end.

    G_t = R_{t+1} + γ ((1 - λ) V(S_{t+1}) + λ G_{t+1}) with V as it was during the episode; then
    V(S_t) ← V(S_t) + α (G_t - V(S_t)) for t = 0, 1, ... With lam=1, every-visit Monte Carlo.
    Arguments as in `td_lambda_accumulating`.
    Source: Sutton & Barto 2018, equations 12.2 to 12.4.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    run = run_of(acting, num_episodes, seed, start_value, start, trace_every)
    return _learned(_offline, acting, lam, alpha, run, start)


def _learned(
    kernel: Callable[[Acting, float, float, Run], int],
    acting: Acting,
    lam: float,
    alpha: float,
    run: Run,
    start: Predicted | None,
) -> Predicted:
    """The run of one of the kernels below, its lam and alpha checked."""
    size, lam = check_step_size(alpha), check_fraction(lam, "lam")
    return predicted(run, kernel(acting, lam, size, run), start)


@compiled
def _accumulating(acting: Acting, lam: float, alpha: float, run: Run) -> int:
    num_steps, traces = 0, no_traces(run.value.size)
    for number in range(run.num_episodes):
        num_steps += _accumulating_episode(acting, lam, alpha, run, traces)
        fade(traces, 0.0)
        record(run, number)
    return num_steps


@inlined
def _accumulating_episode(
    acting: Acting, lam: float, alpha: float, run: Run, traces: Traces
) -> int:
    value = run.value
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        fade(traces, acting.gamma * lam)
        bump(traces, state, traces.z[state] + 1.0)
        td_error = reward + acting.gamma * value[after] - value[state]
        along(value, traces, alpha * td_error)
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _replacing(acting: Acting, lam: float, alpha: float, run: Run) -> int:
    num_steps, traces = 0, no_traces(run.value.size)
    for number in range(run.num_episodes):
        num_steps += _replacing_episode(acting, lam, alpha, run, traces)
        fade(traces, 0.0)
        record(run, number)
    return num_steps


@inlined
def _replacing_episode(acting: Acting, lam: float, alpha: float, run: Run, traces: Traces) -> int:
    value = run.value
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        fade(traces, acting.gamma * lam)
        bump(traces, state, 1.0)
        td_error = reward + acting.gamma * value[after] - value[state]
        along(value, traces, alpha * td_error)
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _dutch(acting: Acting, lam: float, alpha: float, run: Run) -> int:
    num_steps, traces = 0, no_traces(run.value.size)
    for number in range(run.num_episodes):
        num_steps += _dutch_episode(acting, lam, alpha, run, traces)
        fade(traces, 0.0)
        record(run, number)
    return num_steps


@inlined
def _dutch_episode(acting: Acting, lam: float, alpha: float, run: Run, traces: Traces) -> int:
    value = run.value
    state, t = first_state(acting.table, run.rng), 0
    old = value[state]
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        fade(traces, acting.gamma * lam)
        bump(traces, state, traces.z[state] * (1.0 - alpha) + 1.0)
        here, there = value[state], value[after]
        along(value, traces, alpha * (reward + acting.gamma * there - old))
        value[state] -= alpha * (here - old)
        old = there
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _offline(acting: Acting, lam: float, alpha: float, run: Run) -> int:
    episode, num_steps = empty_episode(), 0
    for number in range(run.num_episodes):
        episode = next_episode(acting, run.rng, episode)
        num_steps += episode.length
        g = np.empty(episode.length)
        later = run.value[episode.states[episode.length]]
        for t in range(episode.length - 1, -1, -1):
            there = run.value[episode.states[t + 1]]
            later = episode.rewards[t] + acting.gamma * ((1.0 - lam) * there + lam * later)
            g[t] = later
        for t in range(episode.length):
            update(run, episode.states[t], g[t], alpha)
        record(run, number)
    return num_steps


@compiled
def no_traces(num_states: int) -> Traces:
    """Traces of 0."""
    return Traces(np.zeros(num_states), np.empty(num_states, np.int64), np.zeros(1, np.int64))


@inlined
def fade(traces: Traces, factor: float) -> None:
    """z ← factor · z; what is faint is dropped."""
    kept = 0
    for i in range(traces.num_alive[0]):
        state = traces.alive[i]
        traces.z[state] *= factor
        if traces.z[state] < FAINT:
            traces.z[state] = 0.0
        else:
            traces.alive[kept] = state
            kept += 1
    traces.num_alive[0] = kept


@inlined
def bump(traces: Traces, state: int, trace: float) -> None:
    """z(state) ← trace, above 0."""
    if traces.z[state] == 0.0:
        traces.alive[traces.num_alive[0]] = state
        traces.num_alive[0] += 1
    traces.z[state] = trace


@inlined
def along(value: Floats, traces: Traces, amount: float) -> None:
    """V ← V + amount · z."""
    for i in range(traces.num_alive[0]):
        value[traces.alive[i]] += amount * traces.z[traces.alive[i]]
