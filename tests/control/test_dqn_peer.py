"""The first update of DQN against Stable-Baselines3: same weights and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plaudit.agents.q_values import q_target
from plaudit.control.dqn import improve
from plaudit.envs.replay import Batch
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import greedy
from plaudit.records.spaces import ActionSpec, ObsSpec

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ENVS = {"CartPole-v1": (4, 2), "LunarLander-v3": (8, 4)}
HIDDEN, NUM_ROWS, GAMMA, LR = (32, 16), 64, 0.97, 1e-3


def flat(net: torch.nn.Module, what: str) -> torch.Tensor:
    """Weights or their gradients in our order: each layer's weight, then its bias."""
    found = [p.detach() if what == "weight" else p.grad for p in net.parameters()]
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("max_grad_norm", [0.01, 1e9])
@pytest.mark.parametrize("env", ENVS)
def test_first_update_equals_the_peers(env, max_grad_norm, monkeypatch):
    from stable_baselines3.common.buffers import ReplayBufferSamples
    from stable_baselines3.common.logger import Logger

    if env == "LunarLander-v3":
        pytest.importorskip("Box2D")
    num_obs, num_actions = ENVS[env]
    rng = np.random.default_rng(1)
    obs, next_obs = (3 * rng.standard_normal((2, NUM_ROWS, num_obs))).astype(np.float32)
    action = rng.integers(0, num_actions, NUM_ROWS)
    reward = (2 * rng.standard_normal(NUM_ROWS)).astype(np.float32)
    terminated = rng.random(NUM_ROWS) < 0.2

    # The peer.
    torch.manual_seed(0)
    model = sb3.DQN(
        "MlpPolicy",
        env,
        learning_rate=LR,
        gamma=GAMMA,
        max_grad_norm=max_grad_norm,
        policy_kwargs={"net_arch": list(HIDDEN)},
        device="cpu",
    )
    with torch.no_grad():  # the two nets begin equal: move the target, so that a mix-up would show
        for p in model.q_net_target.parameters():
            p += 0.05 * torch.randn_like(p)
    weights, slow_weights = flat(model.q_net, "weight"), flat(model.q_net_target, "weight")
    columns = (obs, action[:, None], next_obs, terminated[:, None].astype(np.float32))
    samples = ReplayBufferSamples(*map(torch.from_numpy, (*columns, reward[:, None])))
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *args, **kwargs: samples)
    logger = Logger(folder=None, output_formats=[])
    model.set_logger(logger)
    model.train(gradient_steps=1, batch_size=NUM_ROWS)

    # Ours.
    specs = ObsSpec.vector(num_obs), ActionSpec("discrete", (num_actions,))
    policy, slow = (greedy(*specs, rng=rng, hidden=HIDDEN) for _ in range(2))
    with torch.no_grad():
        policy.net.mlp.flat.copy_(weights)
        slow.net.mlp.flat.copy_(slow_weights)
    discount = np.where(terminated, 0, GAMMA).astype(np.float32)
    batch = Batch(obs, action, reward, next_obs, discount, np.arange(NUM_ROWS))
    goal = q_target(batch, policy, slow)
    optimiser = FlatAdam(policy.parameters(), lr=LR)
    _, metrics = improve(policy, optimiser, batch, goal, max_grad_norm)

    assert metrics["loss/q"] == pytest.approx(logger.name_to_value["train/loss"], rel=1e-5)
    np.testing.assert_allclose(policy.net.mlp.flat.grad, flat(model.q_net, "grad"), atol=1e-5)
    np.testing.assert_allclose(policy.net.mlp.flat.detach(), flat(model.q_net, "weight"), atol=1e-5)
    moved = (flat(model.q_net, "weight") - weights).abs().max()
    assert moved > 5e-4  # the step was taken
