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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from plaudit.control.agent import Agent
from plaudit.control.loop import Draws, Keeper, Loop, Watch, Weights
from plaudit.control.on_policy import descend
from plaudit.envs.make import make_worlds
from plaudit.envs.worlds import Array, Saved
from plaudit.models.control_nets import Net, network
from plaudit.models.optim import FlatAdam
from plaudit.models.policies import ActorPolicy, actor
from plaudit.ops.policy import score_function_loss
from plaudit.records.errors import UserError
from plaudit.records.events import Event
from plaudit.records.spaces import ActionSpec

Credit = Literal["q", "advantage"]


class QACConfig(Loop):
    """Actor-critic whose critic is Q (Sutton et al. 2000)."""

    num_envs: int = Field(8, ge=1, description="Copies of the environment that act side by side.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount.")
    credit: Credit = Field(
        "q",
        description="What weighs an action: Q as in the textbook algorithm, or Q less its mean "
        "under the policy.",
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy.")
    lr: float = Field(3e-4, gt=0, description="Step size of the actor's Adam.")
    critic_lr: float = Field(1e-3, gt=0, description="Step size of the critic's Adam.")
    max_grad_norm: float = Field(0.5, gt=0, description="Length to which a gradient is cut.")
    hidden: tuple[int, ...] = Field((64, 64), description="Sizes of the hidden layers.")
    activation: Literal["tanh", "relu"] = Field("tanh", description="Between the layers.")


@dataclass
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

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    next_action: Tensor


def qac(config: QACConfig, saved: Saved | None = None) -> Iterator[Event]:
    """Trains an agent by Q actor-critic, from the beginning or from what was saved."""
    weights, draws = Draws(config.seed, 0), Draws(config.seed, 1)
    worlds = make_worlds(config, seed=config.seed)
    _only_discrete(config.env, worlds.action_spec)
    shape: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation}
    policy = actor(worlds.obs_spec, worlds.action_spec, rng=weights.rng, **shape)
    critic = network(
        worlds.obs_spec, worlds.action_spec.sizes[0], rng=weights.rng, gain_out=1.0, **shape
    )
    actor_adam = FlatAdam(policy.parameters(), lr=config.lr)
    critic_adam = FlatAdam(critic.parameters(), lr=config.critic_lr)
    agent = Agent("qac", config, policy, getattr(worlds, "statistics", None))
    watch = Watch(config, agent.batch(), agent.copy_statistics)
    obs = worlds.reset()
    pending = Pending(policy.act(obs, draws.rng))
    keeper = Keeper(
        agent=agent,
        critic=Weights(critic),
        actor_adam=actor_adam,
        critic_adam=critic_adam,
        worlds=worlds,
        pending=pending,
        draws=draws,
        watch=watch,
    )
    if saved is not None:
        keeper.restore(saved)
        obs = keeper.restored["worlds"]

    while not watch.finished:
        action = pending.action
        moved = worlds.step(action)
        watch.count(int(moved.mask.sum()), moved.episodes)
        pending.action = policy.act(moved.obs, draws.rng)
        next_action = pending.action
        if moved.truncated.any():  # a' belongs to the state that the cut was made in
            next_action = np.where(
                moved.boundary, policy.act(moved.next_obs, draws.rng), next_action
            )
        columns: tuple[Array, ...] = (
            obs,
            action,
            moved.reward.astype(np.float32),
            moved.next_obs,
            moved.terminated.copy(),  # may be a constant that nobody may write to
            next_action,
        )
        obs = moved.obs
        if not moved.mask.all():
            columns = tuple(column[moved.mask] for column in columns)
        if len(columns[0]):
            moves = Moves(*(torch.from_numpy(column) for column in columns))
            of_actor, of_critic, numbers = objectives(config, policy, critic, moves)
            numbers["grad_norm"] = descend(actor_adam, of_actor, config.max_grad_norm)
            numbers["grad_norm/critic"] = descend(critic_adam, of_critic, config.max_grad_norm)
            watch.add({**numbers, "lr": config.lr})
        yield from watch.say(keeper)
    worlds.close()
    yield watch.done()


def objectives(
    config: QACConfig, policy: ActorPolicy, critic: Net, moves: Moves
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Losses of actor and critic whose gradients are the textbook's steps, and numbers to log."""
    q = critic(moves.obs)
    taken = _at(q, moves.action)
    with torch.no_grad():
        ahead = config.gamma * _at(critic(moves.next_obs), moves.next_action)
        target = moves.reward + torch.where(moves.terminated, 0.0, ahead)
    of_critic = 0.5 * ((taken - target) ** 2).mean()
    params = policy(moves.obs)
    logp = policy.head.logp(params, moves.action)
    weight = _CREDITS[config.credit](q.detach(), taken.detach(), params.detach())
    entropy = policy.head.entropy(params).mean()
    of_actor = score_function_loss(logp, weight).mean()
    numbers = {
        "loss/actor": of_actor.item(),
        "loss/critic": of_critic.item(),
        "q/mean": taken.detach().mean().item(),
        "policy/entropy": entropy.item(),
    }
    return of_actor - config.entropy_coef * entropy, of_critic, numbers


def action_value(q: Tensor, taken: Tensor, logits: Tensor) -> Tensor:
    """Q(s, a) itself."""
    return taken


def action_advantage(q: Tensor, taken: Tensor, logits: Tensor) -> Tensor:
    """Q(s, a) − Σ_b π(b|s)·Q(s, b), from q [N, A], the chosen ones [N] and the policy's logits."""
    return taken - (logits.softmax(-1) * q).sum(-1)


_CREDITS = {"q": action_value, "advantage": action_advantage}


def _at(q: Tensor, action: Tensor) -> Tensor:
    return q.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def _only_discrete(env: str, spec: ActionSpec) -> None:
    if spec.kind != "discrete":
        raise UserError(
            f"qac compares a few actions by their Q, but those of {env} are {spec.kind}:"
            " a2c and ppo take any action"
        )
