"""Gymnasium worlds whose optima are known in closed form: what learning is tested against.

Importing this file registers the ids below; by path they are `tests/control/closed_worlds.py:ID`.

    Bandit-v0        two contexts, three arms, one step: softmax policies in closed form
    Stay-v0          truncation must bootstrap: who takes a time limit for an end leaves, and loses
    Corridor-v0      a chain longer than its time limit
    TwoState-v0      Puterman's example: V* = (-8.5714, -20) at γ = 0.95
    Branch-v0        three steps, two draws each: every trajectory can be enumerated
    Regulator-v0     a linear-quadratic regulator in one dimension
    Recall-v0        a cue to be remembered: optimum 1, without memory 1/2
    HiddenCartPole-v1  CartPole-v1 that does not show its velocities

The first five are `TableWorld`s: `world.transition` [A, S, S] and `world.reward` [S, A] are the
rules themselves, for exact computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class TableWorld(gym.Env[Any, Any]):
    """A finite world by its table.

    transition [A, S, S], reward [S, A], initial [S]. The episode terminates on entering one of
    `ends`, which stay where they are and pay nothing. An observation is the state's number.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self, transition: ArrayLike, reward: ArrayLike, initial: ArrayLike, ends: tuple[int, ...]
    ) -> None:
        self.transition: Floats = np.asarray(transition, float)
        self.reward: Floats = np.asarray(reward, float)
        self.initial: Floats = np.asarray(initial, float)
        self.ends = ends
        self.observation_space = spaces.Discrete(self.transition.shape[1])
        self.action_space = spaces.Discrete(self.transition.shape[0])
        self.at = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = self._draw(self.initial)
        return self.at, {}

    def step(self, action: Any) -> Step:
        reward = float(self.reward[self.at, action])
        self.at = self._draw(self.transition[action, self.at])
        return self.at, reward, self.at in self.ends, False, {}

    def _draw(self, probability: Floats) -> int:
        drawn = np.searchsorted(probability.cumsum(), self.np_random.random(), side="right")
        return min(int(drawn), len(probability) - 1)


# --- a bandit

BANDIT_REWARD = np.array([[0.2, 0.8, 0.5], [0.9, 0.1, 0.0]])
"""[contexts, arms]. Best arms 1 and 0: V* = (0.8, 0.9), mean 0.85. All arms alike: (0.5, 1/3)."""


class Bandit(TableWorld):
    """A context is shown, an arm is pulled, BANDIT_REWARD is paid, and the episode is over."""

    def __init__(self) -> None:
        transition = np.zeros((3, 3, 3))
        transition[:, :, 2] = 1.0
        reward = np.vstack([BANDIT_REWARD, np.zeros(3)])
        super().__init__(transition, reward, [0.5, 0.5, 0.0], ends=(2,))


def bandit_soft_optimum(entropy_coef: float) -> Floats:
    """π maximising Σ π r + c·H(π) in each context: softmax(r/c) (stationarity: r − c·log π const)."""
    weight = np.exp((BANDIT_REWARD - BANDIT_REWARD.max(1, keepdims=True)) / entropy_coef)
    return weight / weight.sum(1, keepdims=True)


# --- a time limit that is no end

STAY_PAYS, LEAVE_PAYS, STAY_LIMIT = 1.0, 6.0, 5


class Stay(TableWorld):
    """Staying (0) pays 1 for ever, leaving (1) pays 6 once and terminates; cut after 5 steps.

    With γ = 0.9: staying for ever is worth 1/(1 − 0.9) = 10 > 6, so V* = 10 and Q*(leave) = 6.
    Taking the cut for an end, the stayer's mean over the five ages is
    (1 + 1.9 + 2.71 + 3.439 + 4.0951)/5 = 2.62882 < 6: such a learner leaves.
    """

    def __init__(self) -> None:
        transition = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
        super().__init__(
            transition, [[STAY_PAYS, LEAVE_PAYS], [0.0, 0.0]], initial=[1.0, 0.0], ends=(1,)
        )


STAY_VALUE = 10.0
"""V* of Stay-v0 at γ = 0.9."""
STAY_CUT_VALUE = 2.62882
"""What the stayer's value becomes, on average, where a truncation is taken for a termination."""

# --- a corridor longer than its limit

CORRIDOR_LENGTH, CORRIDOR_LIMIT = 8, 4


class Corridor(TableWorld):
    """Cells 0 to 7, left (0) and right (1); right from 7 pays 1 and left from 0 pays 0.2, and both
    end the episode. Starts anywhere; cut after 4 steps.

    V*(s) = max(γ^(7 − s), 0.2·γ^s): at γ = 0.9 the right end is better from every cell but 0,
    where 0.2 < 0.9^7 = 0.4783 too; hence V*(s) = 0.9^(7 − s) everywhere. Cells 0 to 3 never reach
    that end within the limit: only bootstrapping at the cut tells them of it.
    """

    def __init__(self) -> None:
        n = CORRIDOR_LENGTH
        transition = np.zeros((2, n + 1, n + 1))
        for s in range(n):
            transition[0, s, s - 1 if s > 0 else n] = 1.0
            transition[1, s, s + 1] = 1.0
        transition[:, n, n] = 1.0
        reward = np.zeros((n + 1, 2))
        reward[0, 0], reward[n - 1, 1] = 0.2, 1.0
        super().__init__(transition, reward, np.append(np.full(n, 1 / n), 0.0), ends=(n,))


def corridor_value(gamma: float) -> Floats:
    """V* of the eight cells."""
    cells = np.arange(CORRIDOR_LENGTH)
    return np.maximum(gamma ** (CORRIDOR_LENGTH - 1 - cells), 0.2 * gamma**cells)


# --- Puterman's two states

TWO_STATE_GAMMA = 0.95


class TwoState(TableWorld):
    """Puterman 1994, section 3.1: state 0 offers (5, half the time to 1) or (10, to 1); 1 pays −1
    for ever. Starts in either state; cut after 20 steps, never terminates.

    At γ = 0.95: V*(1) = −1/(1 − 0.95) = −20. In state 0 the first action gives
    V = 5 + 0.95·(V/2 − 10), V = −4.5/0.525 = −8.5714; the second 10 − 19 = −9. V* = (−8.5714, −20).
    Choosing evenly: V = 7.5 + 0.95·(V/4 − 15), V = −6.75/0.7625 = −8.8525.
    """

    def __init__(self) -> None:
        transition = [[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]
        super().__init__(transition, [[5.0, 10.0], [-1.0, -1.0]], initial=[0.5, 0.5], ends=())


TWO_STATE_VALUE = np.array([-4.5 / 0.525, -20.0])
TWO_STATE_EVEN_VALUE = np.array([-6.75 / 0.7625, -20.0])

# --- every trajectory


class Branch(TableWorld):
    """Two states and an end, two actions, chance in every move; cut after 3 steps.

    Small enough that the policy gradient is a sum over all 2·(2·3)³ = 432 trajectories. The end is
    reached with probability 0.1 to 0.3 a step, so both kinds of boundary occur.
    """

    def __init__(self) -> None:
        transition = [
            [[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.0, 0.0, 1.0]],
            [[0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.0, 0.0, 1.0]],
        ]
        reward = [[1.0, -0.5], [0.3, 2.0], [0.0, 0.0]]
        super().__init__(transition, reward, initial=[0.7, 0.3, 0.0], ends=(2,))


BRANCH_LIMIT = 3

# --- a linear-quadratic regulator

REGULATOR_NOISE, REGULATOR_LIMIT, REGULATOR_BOUND = 0.1, 20, 3.0


class Regulator(gym.Env[Any, Any]):
    """x' = x + u + 0.1·w with w ~ N(0, 1), reward −(x² + u²), |u| ≤ 3, x_0 even in [−1, 1].

    Cut after 20 steps, never terminates. See `regulator_optimum` for V*.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-REGULATOR_BOUND, REGULATOR_BOUND, (1,), np.float32)
        self.x = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.x = float(self.np_random.uniform(-1.0, 1.0))
        return np.array([self.x], np.float32), {}

    def step(self, action: Any) -> Step:
        u = float(np.asarray(action).item())
        reward = -(self.x**2 + u**2)
        self.x += u + REGULATOR_NOISE * float(self.np_random.standard_normal())
        return np.array([self.x], np.float32), reward, False, False, {}


def regulator_optimum(gamma: float) -> tuple[float, float, float]:
    """(K, P, c): the best control is u = −K·x and V*(x) = −(P·x² + c).

    V must satisfy −V = min_u x² + u² + γ·(P·(x + u)² + P·σ² + c). The minimiser has
    u·(1 + γP) = −γP·x, so K = γP/(1 + γP); putting it back, P = 1 + γP/(1 + γP) = 1 + K, that is
    γP² + (1 − 2γ)·P − 1 = 0; and c = γ·P·σ²/(1 − γ).
    γ = 0.9: P = (0.8 + √4.24)/1.8 = 1.58840, K = 0.58840, c = 0.142956.
    γ → 1: P is the golden ratio.
    """
    p = ((2 * gamma - 1) + np.sqrt((1 - 2 * gamma) ** 2 + 4 * gamma)) / (2 * gamma)
    k = gamma * p / (1 + gamma * p)
    return float(k), float(p), float(gamma * p * REGULATOR_NOISE**2 / (1 - gamma))


def regulator_value(gain: float, std: float, gamma: float) -> tuple[float, float]:
    """(P, c) with V(x) = −(P·x² + c) for the policy u = −gain·x + std·N(0, 1).

    Matching powers of x in V(x) = −E[x² + u²] + γ·E[V(x + u + σw)]:
    P = (1 + gain²)/(1 − γ(1 − gain)²) and c = (std² + γP(std² + σ²))/(1 − γ).
    """
    p = (1 + gain**2) / (1 - gamma * (1 - gain) ** 2)
    c = (std**2 + gamma * p * (std**2 + REGULATOR_NOISE**2)) / (1 - gamma)
    return p, c


def regulator_cost(control: Callable[[Floats], Floats], gamma: float) -> float:
    """Discounted cost of u = control(x) from x_0 even in [−1, 1], for any function: by quadrature.

    C(x) = x² + u² + γ·E[C(x + u + σw)] on a grid of 2,000 points, the expectation by Gauss–Hermite;
    200 backups leave γ^200 < 1e-9 of it. Control must keep x within ±1.5.
    """
    width = 1.5 / 1000
    x = width * (np.arange(-1000, 1000) + 0.5)
    u = control(x)
    noise, weight = np.polynomial.hermite_e.hermegauss(15)
    after = (x + u)[:, None] + REGULATOR_NOISE * noise
    cost = np.zeros_like(x)
    for _ in range(200):
        cost = x**2 + u**2 + gamma * np.interp(after, x, cost) @ weight / weight.sum()
    start, share = np.polynomial.legendre.leggauss(20)
    return float(np.interp(start, x, cost) @ share / 2)


# --- memory

RECALL_DELAY = 4


class Recall(gym.Env[Any, Any]):
    """A cue (+1 or −1) is shown once; after `delay` blank steps the action must name it.

    Observation [cue or 0, 1 when asked]; actions 0 for −1, 1 for +1; only the answer pays: 1 if
    right, else 0, and terminates. The episode has delay + 2 steps. Nothing that is done before the
    answer changes what is seen, so without memory the best return is 1/2; with it, 1.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, delay: int = RECALL_DELAY) -> None:
        self.delay = int(delay)
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.cue, self.time = 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self._seen(), {}

    def step(self, action: Any) -> Step:
        if self.time == self.delay + 1:
            return self._seen(), float(int(action) == self.cue), True, False, {}
        self.time += 1
        return self._seen(), 0.0, False, False, {}

    def _seen(self) -> NDArray[np.float32]:
        cue = 2 * self.cue - 1 if self.time == 0 else 0
        return np.array([cue, float(self.time == self.delay + 1)], np.float32)


class HiddenCartPole(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole-v1's position and angle without their velocities."""

    def __init__(self, **options: Any) -> None:
        env = CartPoleEnv(**options)
        super().__init__(env)
        space = env.observation_space
        self.observation_space = spaces.Box(space.low[::2], space.high[::2], dtype=np.float32)

    def observation(self, observation: Any) -> Any:
        return observation[::2]


WORLDS: dict[str, tuple[Any, int | None]] = {
    "Bandit-v0": (Bandit, None),
    "Stay-v0": (Stay, STAY_LIMIT),
    "Corridor-v0": (Corridor, CORRIDOR_LIMIT),
    "TwoState-v0": (TwoState, 20),
    "Branch-v0": (Branch, BRANCH_LIMIT),
    "Regulator-v0": (Regulator, REGULATOR_LIMIT),
    "Recall-v0": (Recall, None),
    "HiddenCartPole-v1": (HiddenCartPole, 500),
}
"""Class and time limit of every id."""

for _name, (_kind, _limit) in WORLDS.items():
    if _name not in gym.registry:  # the file may be loaded by name and by path
        gym.register(_name, _kind, max_episode_steps=_limit)
