"""Distributional DQN: learn quantiles of the return of every action, and act by their mean (QR-DQN).

The net gives θ_1(s, a) … θ_N(s, a), which are to lie at the chances τ_i = (i − ½)/N. With goals
T_j = r + γ·r' + … + γ^k·θ_j(s_k, a*) of the target net, and u = T_j − θ_i(s, a),

    loss = Σ_i mean_j |τ_i − 1{u < 0}| · H(u),      H Huber's loss with κ = 1

a* is what the net that learns holds for best (double: van Hasselt et al. 2016). All else is as in
`dqn`. The policy is a plain net of action values: a mean of quantiles is linear in the last layer,
so that layer's averages give the same values, and acting costs no more than with `dqn`.

Source: Dabney et al. 2018, "Distributional reinforcement learning with quantile regression",
equations 9 and 10, algorithm 1. Departures: the double choice, chains of several steps, the
target net's small moves, as in `dqn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import Field

from plaudit.agents.loop import Weights
from plaudit.agents.off_policy import act_and_learn
from plaudit.agents.q_learning import QLearning, TargetNet, epsilon, new_replay, sample_batch
from plaudit.agents.q_values import F32, Ints, epsilon_greedy
from plaudit.agents.training import Training
from plaudit.envs.replay import Batch
from plaudit.envs.replay_prioritised import PrioritisedReplay
from plaudit.envs.rewarded import StepReward
from plaudit.envs.worlds import Worlds
from plaudit.nets.control_nets import Net, network
from plaudit.nets.optim import FlatAdam, clip_grad_norm_
from plaudit.nets.policies import Policy, greedy
from plaudit.records.events import Event
from plaudit.records.state import Saved


class DistributionalDQNConfig(QLearning):
    """Deep Q-learning of quantiles of returns (Dabney et al. 2018), double, with chains."""

    num_quantiles: int = Field(
        50,
        ge=1,
        description="Quantiles of each action's return (2018: 200; fewer are as good here).",
    )


def dqn_distributional(
    config: DistributionalDQNConfig,
    *,
    worlds: Worlds | None = None,
    reward: StepReward | None = None,
    saved: Saved | None = None,
) -> Iterator[Event]:
    """Trains an agent by distributional DQN, from the beginning or from what was saved."""
    training = Training("dqn_distributional", config, worlds, reward, gamma=config.gamma)
    specs = training.obs_spec, training.action_spec
    policy = greedy(*specs, rng=training.init_rng, hidden=config.hidden)
    net = quantile_net(policy, config.num_quantiles, training.init_rng)
    fold(net, policy)
    target = TargetNet(net, every=config.target_every, tau=config.tau)
    optimiser = FlatAdam(net.parameters(), lr=config.lr)
    replay = new_replay(config, training.worlds)
    obs = training.begin(
        policy, saved, quantiles=Weights(net), slow=target, optimiser=optimiser, replay=replay
    )
    monitor = training.monitor

    def explore(obs: NDArray[Any]) -> Ints:
        policy.head.epsilon = epsilon(config, monitor.step)
        return epsilon_greedy(policy, obs, policy.head.epsilon, training.rng)

    def learn() -> dict[str, float]:
        target.follow(monitor.step)
        batch = sample_batch(config, replay, monitor.remaining, training.rng)
        goal = quantile_target(batch, policy, target.net)
        optimiser.lr = config.lr * (monitor.remaining if config.lr_schedule == "linear" else 1.0)
        delta, metrics = improve(net, optimiser, batch, goal, config.max_grad_norm)
        fold(net, policy)
        if isinstance(replay, PrioritisedReplay):
            replay.refresh(batch.rows, delta)
        return {**metrics, "epsilon": policy.head.epsilon, "lr": optimiser.lr}

    yield from act_and_learn(training, config, obs, replay, explore=explore, learn=learn)


def improve(
    net: Net, optimiser: FlatAdam, batch: Batch, goal: F32, max_grad_norm: float
) -> tuple[F32, dict[str, float]]:
    """One gradient step that moves quantiles towards `goal` [B, N]; the errors of the means [B]."""
    out, back = net.traced(batch.obs)
    theta = out.reshape(len(goal), -1, goal.shape[1])
    weight = np.ones(len(goal), np.float32) if batch.weight is None else batch.weight
    loss, mean, delta, grad = quantile_huber_td(theta, batch.action, goal, weight)
    optimiser.zero_grad()
    back(grad.reshape(out.shape))
    norm = clip_grad_norm_(optimiser.params, max_grad_norm)
    optimiser.step()
    return delta, {"loss/q": loss, "q/mean": mean, "grad_norm": norm}


def quantile_target(batch: Batch, policy: Policy[Any], target: Net) -> F32:
    """T [B, N] = reward + discount · θ_target(next_obs, a*), a* the best by the policy's means."""
    chosen = policy.act(batch.next_obs, None)
    num_actions = policy.head.spec.sizes[0]
    theta = target.infer(batch.next_obs).reshape(len(chosen), num_actions, -1)
    goal: F32 = (
        batch.reward[:, None] + batch.discount[:, None] * theta[np.arange(len(chosen)), chosen]
    )
    return goal


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def quantile_huber_td(
    theta: F32, action: Ints, goal: F32, weight: F32
) -> tuple[float, float, F32, F32]:
    """Mean over the batch of w · Σ_i mean_j |τ_i − 1{u < 0}| · H(u), u = goal_j − θ_i(s, a).

    theta [B, A, N], action and weight [B], goal [B, N]. Returns the loss, the mean of Q(s, a), the
    errors Q(s, a) − mean goal [B], and the loss's gradient in theta [B, A, N].
    Source: Dabney et al. 2018, equation 10, κ = 1.
    """
    num, count = goal.shape
    grad = np.zeros_like(theta)
    delta = np.empty(num, np.float32)
    loss, total = 0.0, 0.0
    for b in range(num):
        own, into, scale = theta[b, action[b]], grad[b, action[b]], weight[b] / (num * count)
        sum_goal, sum_own = 0.0, 0.0
        for i in range(count):
            tau = (i + 0.5) / count
            slope = 0.0
            for j in range(count):
                u = goal[b, j] - own[i]
                share = 1.0 - tau if u < 0.0 else tau
                size = abs(u)
                loss += scale * share * (0.5 * u * u if size <= 1.0 else size - 0.5)
                slope -= share * min(max(u, -1.0), 1.0)
            into[i] = scale * slope
            sum_own += own[i]
            sum_goal += goal[b, i]
        delta[b] = (sum_own - sum_goal) / count
        total += sum_own / count
    return loss, total / num, delta, grad


def quantile_net(policy: Policy[Any], num_quantiles: int, rng: np.random.Generator) -> Net:
    """A net like the policy's with N outputs an action; what sees images is one and the same."""
    own = policy.net
    net = network(
        own.obs_spec,
        own.num_out * num_quantiles,
        hidden=own.hidden,
        activation=own.activation,
        rng=rng,
        init="uniform",
    )
    own.eyes = net.eyes
    return net


def fold(net: Net, policy: Policy[Any]) -> None:
    """Makes the policy's values the means of the net's quantiles: all layers alike but the last,
    which is averaged over each action's quantiles."""
    source, into = net.mlp.flat.detach().numpy(), policy.net.mlp.flat.detach().numpy()
    num_in, num_out, num_actions = net.mlp.sizes[-2], net.mlp.sizes[-1], policy.net.num_out
    below = source.size - num_out * (num_in + 1)
    into[:below] = source[:below]
    weight, bias = source[below:-num_out], source[-num_out:]
    into[below:-num_actions] = weight.reshape(num_actions, -1, num_in).mean(1).ravel()
    into[-num_actions:] = bias.reshape(num_actions, -1).mean(1)
