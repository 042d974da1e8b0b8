"""Off-policy prediction with a linear value: semi-gradient TD(0), which can diverge, and the two
gradient methods that cannot, GTD2 and TDC.

All act by `behaviour` and weight each step by ρ_t = π(A_t|S_t) / b(A_t|S_t). The two gradient
methods descend the projected Bellman error; `second` estimates the least-squares answer to the TD
error, which is why it needs its own step size. Source: Sutton et al. 2009; Sutton & Barto 2018,
sections 11.1 and 11.7.
"""

from __future__ import annotations

from numpy.typing import ArrayLike
from scipy import sparse

from plaudit.mdp.compiled import compiled, inlined
from plaudit.mdp.learning.episodes import Acting, acting_in, check_positive, goes_on
from plaudit.mdp.learning.features import add, dot
from plaudit.mdp.learning.importance import ratios
from plaudit.mdp.learning.learned import Floats, LinearPredicted
from plaudit.mdp.learning.linear_run import LinearRun, keep, linear_run, linearly_predicted
from plaudit.mdp.learning.sampling import drawn_action, first_state, step
from plaudit.mdp.model import MDP


def off_policy_td(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    features: ArrayLike | sparse.sparray,
    *,
    num_episodes: int,
    alpha: float,
    seed: int = 0,
    start_weights: ArrayLike | None = None,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value of `policy` from episodes of `behaviour`, by semi-gradient TD(0).

    w ← w + α ρ_t δ_t x(S_t), δ_t = R_{t+1} + γ w·x(S_{t+1}) - w·x(S_t). It can diverge, as on
    Baird's counterexample; with one-hot features it does not.
    policy, behaviour: [S] or [S, A], behaviour above 0 wherever policy is; features [S, d];
    start_weights [d]; start: an earlier result to go on from; max_steps cuts episodes.
    Source: Sutton & Barto 2018, equation 11.2.
    """
    acting = acting_in(mdp, behaviour, max_steps=max_steps)
    ratio, size = ratios(mdp, policy, behaviour), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every, start_weights)
    return linearly_predicted(run, _semi_gradient(acting, ratio, size, run), start)


def gtd2(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    features: ArrayLike | sparse.sparray,
    *,
    num_episodes: int,
    alpha: float,
    beta: float,
    seed: int = 0,
    start_weights: ArrayLike | None = None,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value of `policy` from episodes of `behaviour`, by GTD2.

    w ← w + α ρ_t (x - γx') (h·x),  h ← h + β ρ_t (δ_t - h·x) x, both from the weights before.
    beta: step size of h (`second`). Other arguments as in `off_policy_td`.
    Source: Sutton et al. 2009; Sutton & Barto 2018, section 11.7.
    """
    acting = acting_in(mdp, behaviour, max_steps=max_steps)
    ratio, size = ratios(mdp, policy, behaviour), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every, start_weights)
    steps = _gtd2(acting, ratio, size, check_positive(beta, "beta"), run)
    return linearly_predicted(run, steps, start)


def tdc(
    mdp: MDP,
    policy: ArrayLike,
    behaviour: ArrayLike,
    features: ArrayLike | sparse.sparray,
    *,
    num_episodes: int,
    alpha: float,
    beta: float,
    seed: int = 0,
    start_weights: ArrayLike | None = None,
    start: LinearPredicted | None = None,
    max_steps: int | None = None,
    trace_every: int | None = None,
) -> LinearPredicted:
    """The linear value of `policy` from episodes of `behaviour`, by TDC (GTD(0)).

    w ← w + α ρ_t (δ_t x - γ x' (h·x)),  h ← h + β ρ_t (δ_t - h·x) x, both from the weights before.
    beta: step size of h (`second`). Other arguments as in `off_policy_td`.
    Source: Sutton et al. 2009; Sutton & Barto 2018, section 11.7.
    """
    acting = acting_in(mdp, behaviour, max_steps=max_steps)
    ratio, size = ratios(mdp, policy, behaviour), check_positive(alpha, "alpha")
    run = linear_run(acting, features, num_episodes, seed, start, trace_every, start_weights)
    steps = _tdc(acting, ratio, size, check_positive(beta, "beta"), run)
    return linearly_predicted(run, steps, start)


@compiled
def _semi_gradient(acting: Acting, ratio: Floats, alpha: float, run: LinearRun) -> int:
    num_steps = 0
    for number in range(run.num_episodes):
        num_steps += _semi_gradient_episode(acting, ratio, alpha, run)
        keep(run, number)
    return num_steps


@inlined
def _semi_gradient_episode(acting: Acting, ratio: Floats, alpha: float, run: LinearRun) -> int:
    x, w = run.features, run.weights
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        action = drawn_action(acting.policy, run.rng, state)
        after, reward = step(acting.table, run.rng, state, action)
        rho = ratio[state, action]
        td_error = reward + acting.gamma * dot(x, after, w) - dot(x, state, w)
        add(x, state, alpha * rho * td_error, w)
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _gtd2(acting: Acting, ratio: Floats, alpha: float, beta: float, run: LinearRun) -> int:
    num_steps = 0
    for number in range(run.num_episodes):
        num_steps += _gtd2_episode(acting, ratio, alpha, beta, run)
        keep(run, number)
    return num_steps


@inlined
def _gtd2_episode(acting: Acting, ratio: Floats, alpha: float, beta: float, run: LinearRun) -> int:
    x, w, h = run.features, run.weights, run.second
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        action = drawn_action(acting.policy, run.rng, state)
        after, reward = step(acting.table, run.rng, state, action)
        rho = ratio[state, action]
        td_error = reward + acting.gamma * dot(x, after, w) - dot(x, state, w)
        guess = dot(x, state, h)
        add(x, state, alpha * rho * guess, w)
        add(x, after, -alpha * rho * acting.gamma * guess, w)
        add(x, state, beta * rho * (td_error - guess), h)
        run.counts[state] += 1
        state = after
        t += 1
    return t


@compiled
def _tdc(acting: Acting, ratio: Floats, alpha: float, beta: float, run: LinearRun) -> int:
    num_steps = 0
    for number in range(run.num_episodes):
        num_steps += _tdc_episode(acting, ratio, alpha, beta, run)
        keep(run, number)
    return num_steps


@inlined
def _tdc_episode(acting: Acting, ratio: Floats, alpha: float, beta: float, run: LinearRun) -> int:
    x, w, h = run.features, run.weights, run.second
    state, t = first_state(acting.table, run.rng), 0
    while goes_on(acting, state, t):
        action = drawn_action(acting.policy, run.rng, state)
        after, reward = step(acting.table, run.rng, state, action)
        rho = ratio[state, action]
        td_error = reward + acting.gamma * dot(x, after, w) - dot(x, state, w)
        guess = dot(x, state, h)
        add(x, state, alpha * rho * td_error, w)
        add(x, after, -alpha * rho * acting.gamma * guess, w)
        add(x, state, beta * rho * (td_error - guess), h)
        run.counts[state] += 1
        state = after
        t += 1
    return t
