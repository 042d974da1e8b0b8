"""DQN: learn the value of every action from replay, and act by the best.

    1. act: any action with chance ε, else the one of highest Q; keep the transition;
    2. draw a batch of chains of up to `n_step` steps from replay;
    3. lessen H(Q(s, a) − (r + γ·r' + … + γ^k·Q⁻(s_k, a*))), H Huber's loss, Q⁻ the target net.

`target` says who chooses a*: the target net (q: Mnih et al. 2015), or the net that learns (double_q:
van Hasselt et al. 2016). `net` may split values into those of states and advantages (dueling: Wang
et al. 2016), and `replay` may prefer what surprised (prioritised: Schaul et al. 2016). Learning the
distribution of returns is `dqn_distributional`.

Departures from Mnih et al. 2015: Adam in place of RMSprop, gradients clipped by their norm, several
steps' rewards (Hessel et al. 2018), and by default a target net that follows little by little
(Lillicrap et al. 2016) where 2015 copied every 10,000 updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.off_policy import act_and_learn
from plaudit.agents.q_learning import QLearning, TargetNet, epsilon, new_replay, sample_batch
from plaudit.agents.q_values import F32, HEADS, TARGETS, epsilon_greedy, huber_td, traced_q_values
from plaudit.agents.training import Training
from plaudit.envs.replay import Batch
from plaudit.envs.replay_prioritised import PrioritisedReplay
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Worlds
from plaudit.nets.actions import Greedy
from plaudit.nets.optim import FlatAdam, clip_grad_norm_
from plaudit.nets.policies import Policy, greedy
from plaudit.records.events import Event
from plaudit.records.state import Saved


class DQNConfig(QLearning):
    """Deep Q-learning (Mnih et al. 2015), double unless said otherwise (van Hasselt et al. 2016)."""

    target: Literal["double_q", "q"] = Field(
        "double_q",
        description="Who chooses the next action of a target: the target net (q), or the net that "
        "learns (double_q).",
    )
    net: Literal["plain", "dueling"] = Field(
        "plain", description="Values of actions, or of states and advantages (Wang et al. 2016)."
    )


def dqn(
    config: DQNConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by DQN, from the beginning or from what was saved."""
    training = Training("dqn", config, worlds, reward, gamma=config.gamma)
    specs = training.obs_spec, training.action_spec
    policy = greedy(*specs, rng=training.init_rng, hidden=config.hidden, head=HEADS[config.net])
    target = TargetNet(policy, every=config.target_every, tau=config.tau)
    optimiser = FlatAdam(policy.parameters(), lr=config.lr)
    replay = new_replay(config, training.worlds)
    obs = training.begin(policy, saved, slow=target, optimiser=optimiser, replay=replay)
    monitor = training.monitor
    target_of = TARGETS[config.target]

    def explore(obs: NDArray[Any]) -> NDArray[np.int64]:
        policy.head.epsilon = epsilon(config, monitor.step)
        return epsilon_greedy(policy, obs, policy.head.epsilon, training.rng)

    def learn() -> dict[str, float]:
        target.follow(monitor.step)
        batch = sample_batch(config, replay, monitor.remaining, training.rng)
        goal = target_of(batch, policy, target.net)
        optimiser.lr = config.lr * (monitor.remaining if config.lr_schedule == "linear" else 1.0)
        delta, metrics = improve(policy, optimiser, batch, goal, config.max_grad_norm)
        if isinstance(replay, PrioritisedReplay):
            replay.refresh(batch.rows, delta)
        return {**metrics, "epsilon": policy.head.epsilon, "lr": optimiser.lr}

    yield from act_and_learn(training, config, obs, replay, explore=explore, learn=learn)


def improve(
    policy: Policy[Greedy], optimiser: FlatAdam, batch: Batch, goal: F32, max_grad_norm: float
) -> tuple[F32, dict[str, float]]:
    """One gradient step that moves Q(s, a) towards `goal` [B]; the TD errors [B], and metrics."""
    q, back = traced_q_values(policy, batch.obs)
    weight = np.ones(len(goal), np.float32) if batch.weight is None else batch.weight
    loss, mean, delta, grad = huber_td(q, batch.action, goal, weight)
    optimiser.zero_grad()
    back(grad)
    norm = clip_grad_norm_(optimiser.params, max_grad_norm)
    optimiser.step()
    return delta, {"loss/q": loss, "q/mean": mean, "grad_norm": norm}
