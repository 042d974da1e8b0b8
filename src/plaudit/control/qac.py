"""Q actor-critic: the actor follows what the critic says of its action, the critic learns by SARSA.

At every step, with s, a under way:

    1. act: reward r and next state s'; draw the next action a' from π(·|s');
    2. actor:  θ ← θ + α_θ·Q_w(s, a)·∇log π_θ(a|s)
    3. critic: w ← w + α_w·δ·∇Q_w(s, a),   δ = r + γ·Q_w(s', a')·(1 − terminated) − Q_w(s, a)
    4. go on with s', a'.

Source: Sutton et al. 2000, "Policy gradient methods for reinforcement learning with function
approximation"; the step-by-step form is the usual textbook one. The textbook form has no end of an
episode; here a termination removes Q_w(s', a'), and where an episode is only cut off, a' is drawn
in the state it was cut in, not in the first of the next episode. Departures: Adam in place of the
plain steps, each step the mean over the copies, and γ^t is left out as in `reinforce`.

`credit: advantage` weighs the action by Q_w(s, a) − Σ_b π(b|s)·Q_w(s, b) instead: the expected
gradient is the same, with far less noise. Discrete actions only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.actor_critic import by_logits
from plaudit.agents.loop import Loop, Weights
from plaudit.agents.on_policy import Schedule, descend, scheduled
from plaudit.agents.training import Training
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.control_nets import Net, network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import ActorPolicy, actor
from plaudit.records.errors import UserError
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec
from plaudit.records.state import Saved

F32: TypeAlias = NDArray[np.float32]
Credit = Literal["q", "advantage"]


class QACConfig(Loop):
    """Actor-critic whose critic is Q (Sutton et al. 2000)."""

    num_envs: int = Field(8, ge=1, description="Copies of the environment that act side by side.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount of the reward a step later.")
    credit: Credit = Field(
        "q",
        description="What weighs an action: Q as in the textbook algorithm, or Q less its mean "
        "under the policy.",
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy.")
    lr: float = Field(3e-4, gt=0, description="Step size of the actor's Adam.")
    critic_lr: float = Field(1e-3, gt=0, description="Step size of the critic's Adam.")
    lr_schedule: Schedule = Field("constant", description="Whether both fall to 0 over the run.")
    max_grad_norm: float = Field(0.5, gt=0, description="Length to which a gradient is cut.")
    hidden: tuple[int, ...] = Field((64, 64), description="Sizes of the hidden layers.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between the layers.")


class Pending:
    """The action that was drawn for the next step before the loop was saved."""

    action: NDArray[np.int64]

    def state(self) -> Saved:
        """The action."""
        return {"action": self.action}, {}

    def restore(self, saved: Saved) -> None:
        """Takes it back."""
        self.action = saved[0]["action"]


@dataclass(frozen=True)
class Moves:
    """N steps: where, what was done, what it paid, where it led, whether that was the end, and what
    is done next there."""

    obs: Array
    action: NDArray[np.int64]
    reward: F32
    next_obs: Array
    terminated: NDArray[np.bool_]
    next_action: NDArray[np.int64]


def qac(
    config: QACConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by Q actor-critic, from the beginning or from what was saved."""
    training = Training("qac", config, worlds, reward, gamma=config.gamma)
    _only_discrete(config.env, training.action_spec)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(training.obs_spec, training.action_spec, rng=training.init_rng, **shape)
    critic = network(
        training.obs_spec,
        training.action_spec.sizes[0],
        rng=training.init_rng,
        gain_out=1.0,
        **shape,
    )
    actor_adam = FlatAdam(policy.parameters(), lr=config.lr)
    critic_adam = FlatAdam(critic.parameters(), lr=config.critic_lr)
    pending = Pending()
    obs = training.begin(
        policy,
        saved,
        critic=Weights(critic),
        actor_adam=actor_adam,
        critic_adam=critic_adam,
        pending=pending,
    )
    monitor = training.monitor
    if saved is None or training.lost_episodes:
        pending.action = policy.act(obs, training.rng)

    while not monitor.finished:
        action = pending.action
        moved = training.worlds.step(action)
        monitor.count(int(moved.mask.sum()), moved.episodes)
        pending.action = policy.act(moved.obs, training.rng)
        next_action = pending.action
        if moved.truncated.any():  # a' belongs to the state that the cut was made in
            next_action = np.where(
                moved.boundary, policy.act(moved.next_obs, training.rng), next_action
            )
        moves = Moves(
            obs,
            action,
            moved.reward.astype(np.float32),
            moved.next_obs,
            moved.terminated,
            next_action,
        )
        obs = moved.obs
        if moved.mask.any():
            actor_adam.lr = scheduled(config.lr, config.lr_schedule, monitor.remaining)
            critic_adam.lr = scheduled(config.critic_lr, config.lr_schedule, monitor.remaining)
            numbers, improve, judge = objectives(config, policy, critic, moves, moved.mask)
            norms = {
                "grad_norm": descend(actor_adam, improve, config.max_grad_norm),
                "grad_norm/critic": descend(critic_adam, judge, config.max_grad_norm),
            }
            monitor.add({**numbers, **norms, "lr": actor_adam.lr})
        yield from monitor.events(training.parts)
    yield training.end()


def objectives(
    config: QACConfig, policy: ActorPolicy, critic: Net, moves: Moves, mask: NDArray[np.bool_]
) -> tuple[dict[str, float], Callable[[], None], Callable[[], None]]:
    """Numbers to log, and the ways back of actor and critic: the textbook's steps as gradients.

    Actor: mean of −log π(a|s)·weight − entropy_coef·H; critic: mean of ½δ², its target held constant.
    """
    rows = np.arange(len(moves.action))
    share = mask.astype(np.float32) / np.float32(np.count_nonzero(mask))
    q, back_through_critic = critic.traced(moves.obs)
    ahead = critic.infer(moves.next_obs)[rows, moves.next_action]
    target = moves.reward + np.where(
        moves.terminated, np.float32(0), np.float32(config.gamma) * ahead
    )
    delta = target - q[rows, moves.action]
    grad_q = np.zeros_like(q)
    grad_q[rows, moves.action] = -share * delta

    params, back_through_policy = policy.net.traced(moves.obs)
    weight = CREDITS[config.credit](q, moves.action, params)
    grad, gain, entropy = by_logits(params, moves.action, weight, share, config.entropy_coef)
    numbers = {
        "loss/actor": gain,
        "loss/critic": 0.5 * float(np.dot(share, delta * delta)),
        "q/mean": float(np.dot(share, q[rows, moves.action])),
        "policy/entropy": entropy,
    }
    return numbers, partial(back_through_policy, grad), partial(back_through_critic, grad_q)


def action_value(q: F32, action: NDArray[np.int64], logits: F32) -> F32:
    """Q(s, a) itself: [N] from q [N, A]."""
    taken: F32 = q[np.arange(len(action)), action]
    return taken


def action_advantage(q: F32, action: NDArray[np.int64], logits: F32) -> F32:
    """Q(s, a) − Σ_b π(b|s)·Q(s, b), with π the softmax of the policy's logits [N, A]."""
    chance = np.exp(logits - logits.max(-1, keepdims=True))
    chance /= chance.sum(-1, keepdims=True)
    above: F32 = action_value(q, action, logits) - (chance * q).sum(-1)
    return above


CREDITS = {"q": action_value, "advantage": action_advantage}
"""What weighs an action."""


def _only_discrete(env: str, spec: ActionSpec) -> None:
    if spec.kind != "discrete":
        raise UserError(
            f"qac compares a few actions by their Q, but those of {env} are {spec.kind}:"
            " a2c and ppo take any action"
        )
