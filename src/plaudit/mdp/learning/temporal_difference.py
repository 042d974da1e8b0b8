"""Temporal-difference prediction: estimates learned from the estimates that follow.

An episode that `max_steps` cuts bootstraps from the state in which it was cut; only a terminal
state is worth 0. Source: Sutton & Barto 2018, chapters 6 and 7.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.episodes import (
    Acting,
    Episode,
    Run,
    acted,
    acting_in,
    check_count,
    check_step_size_or_average,
    empty_episode,
    goes_on,
    longer,
    predicted,
    record,
    run_of,
)
from plaudit.mdp.learning.learned import Predicted
from plaudit.mdp.learning.monte_carlo import returns, update
from plaudit.mdp.learning.sampling import first_state
from plaudit.mdp.model import MDP, MRP


def td_prediction(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    num_episodes: int,
    alpha: float | None = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy by TD(0).

    V(S_t) ← V(S_t) + α (R_{t+1} + γ V(S_{t+1}) - V(S_t)) after every step.
    policy [S] or [S, A], none for a chain; alpha None: one over the visits of the state;
    start_value: a number or [S]; start: an earlier result to go on from (its generator is used,
    not `seed`); max_steps cuts episodes, as worlds without an end need; trace_every: keep the value
    after each so many episodes.
    Source: Sutton 1988; Sutton & Barto 2018, section 6.1.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    size = check_step_size_or_average(alpha)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=start_value,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _td(acting, size, run), start)


def n_step_td(
    mdp: MDP | MRP,
    policy: ArrayLike | None = None,
    *,
    n: int,
    num_episodes: int,
    alpha: float | None = 0.1,
    seed: int = 0,
    start_value: ArrayLike | None = None,
    start: Predicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> Predicted:
    """The value of a policy from n rewards and the estimate after them.

    G = R_{t+1} + γ R_{t+2} + ... + γ^(n-1) R_{t+n} + γ^n V(S_{t+n}), made as soon as step n is
    taken, and shorter at the end of an episode: with n as long as the episodes, every-visit Monte
    Carlo. Arguments as in `td_prediction`.
    Source: Sutton & Barto 2018, section 7.1.
    """
    acting = acting_in(mdp, policy, max_steps=max_steps)
    size = check_step_size_or_average(alpha)
    run = run_of(
        acting,
        num_episodes=num_episodes,
        seed=seed,
        start_value=start_value,
        start=start,
        trace_every=trace_every,
    )
    return predicted(run, _n_step(acting, check_count(n, "n"), size, run), start)


@compiled
def _td(acting: Acting, alpha: float, run: Run) -> int:
    num_steps = 0
    for number in range(run.num_episodes):
        num_steps += _td_episode(acting, alpha, run)
        record(run, number)
    return num_steps


@inlined
def _td_episode(acting: Acting, alpha: float, run: Run) -> int:
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        after, reward = acted(acting, run.rng, state)
        update(run, state, reward + acting.gamma * run.value[after], alpha)
        state = after
        t += 1
    return t


@compiled
def _n_step(acting: Acting, n: int, alpha: float, run: Run) -> int:
    num_steps, buffer = 0, empty_episode()
    for number in range(run.num_episodes):
        state, t = first_state(acting.table, run.rng), 0
        buffer.states[0] = state
        while goes_on(acting, state, t):
            buffer = longer(buffer, t)
            state, t = _n_step_on(acting, n, alpha, run, buffer, state, t)
        _rest(acting, buffer, n, t, alpha, run)
        num_steps += t
        record(run, number)
    return num_steps


@inlined
def _n_step_on(
    acting: Acting, n: int, alpha: float, run: Run, buffer: Episode, state: int, t: int
) -> tuple[int, int]:
    """To the end of the episode or of the buffer: (state, steps) there."""
    while goes_on(acting, state, t) and t < buffer.rewards.size:
        state, buffer.rewards[t] = acted(acting, run.rng, state)
        t += 1
        buffer.states[t] = state
        if t >= n and not acting.table.terminal[state]:
            target = run.value[state]
            for k in range(t - 1, t - n - 1, -1):
                target = buffer.rewards[k] + acting.gamma * target
            update(run, buffer.states[t - n], target, alpha)
    return state, t


@compiled
def _rest(acting: Acting, buffer: Episode, n: int, t: int, alpha: float, run: Run) -> None:
    """The states that were still waiting for their n-th step when the episode stopped."""
    last = buffer.states[t]
    ended = acting.table.terminal[last]
    begin = max(0, t - n) if ended else max(0, t - n + 1)
    waiting = Episode(
        buffer.states[begin:], buffer.actions[begin:], buffer.rewards[begin:], t - begin, ended
    )
    g = returns(waiting, acting.gamma, 0.0 if ended else run.value[last])
    for k in range(t - begin):
        update(run, waiting.states[k], g[k], alpha)
