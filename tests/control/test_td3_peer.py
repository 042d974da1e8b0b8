"""The first updates of TD3 against Stable-Baselines3: same weights, batch and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.control.td3 import Learner, TD3Config
from plaudit.envs.replay import Batch
from plaudit.nets.control_nets import Net
from plaudit.records.spaces import ActionSpec, ObsSpec

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

HIDDEN, NUM_ROWS, GAMMA, TAU, LR = (32, 32), 64, 0.97, 0.01, 5e-4


def flat(module: nn.Module, what: str = "data") -> torch.Tensor:
    """Weights in our order, which is torch's: each layer's weight, then its bias."""
    return torch.cat([getattr(p, what).flatten() for p in module.parameters()])


def fill(net: Net, weights: torch.Tensor) -> None:
    with torch.no_grad():
        net.mlp.flat.copy_(weights)


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours.detach(), theirs, atol=1e-5, rtol=0)


@pytest.fixture
def learners():
    """The peer's model, ours with its weights, and a batch for both."""
    from stable_baselines3.common.buffers import ReplayBufferSamples
    from stable_baselines3.common.logger import configure

    torch.manual_seed(0)
    model = sb3.TD3(
        "MlpPolicy",
        "Pendulum-v1",
        policy_kwargs={"net_arch": list(HIDDEN)},
        learning_rate=LR,
        gamma=GAMMA,
        tau=TAU,
        device="cpu",
    )
    model.set_logger(configure(None, []))
    with torch.no_grad():  # targets that differ from what they follow: mixing them up would show
        for module in (model.critic_target, model.actor_target):
            for p in module.parameters():
                p.add_(0.05 * torch.randn_like(p))
    rng = np.random.default_rng(2)
    obs, next_obs = rng.standard_normal((2, NUM_ROWS, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (NUM_ROWS, 1)).astype(np.float32)
    reward = rng.standard_normal(NUM_ROWS).astype(np.float32)
    terminated = rng.random(NUM_ROWS) < 0.2
    discount = np.where(terminated, 0, GAMMA).astype(np.float32)
    batch = Batch(obs, action, reward, next_obs, discount, np.arange(NUM_ROWS))
    columns = (obs, action, next_obs, terminated[:, None].astype(np.float32), reward[:, None])
    rows = ReplayBufferSamples(*map(torch.from_numpy, columns))
    model.replay_buffer.sample = lambda *args, **keys: rows

    config = TD3Config(hidden=HIDDEN, gamma=GAMMA, tau=TAU, lr=LR)
    spec = ActionSpec("box", (1,), (-2.0,), (2.0,))
    learner = Learner(config, ObsSpec.vector(3), spec, rng)
    fill(learner.policy.net, flat(model.actor))
    fill(learner.policy_target.net, flat(model.actor_target))
    fill(learner.critic, flat(model.critic))
    fill(learner.critic_target, flat(model.critic_target))
    return model, learner, batch


def both_update(model, learner, batch, seed):
    """One update of each with the same noise; ours gives its metrics, theirs are in the logger."""
    torch.manual_seed(seed)
    model.train(gradient_steps=1, batch_size=NUM_ROWS)
    torch.manual_seed(seed)
    # Theirs draws N(0, 0.2²) where ours takes N(0, 1) and scales it.
    noise = torch.empty(NUM_ROWS, 1).normal_(0, 0.2).numpy() / np.float32(0.2)
    return learner.update(batch, noise)


def test_first_update_moves_the_critics_alone(learners):
    model, learner, batch = learners
    before = [flat(m) for m in (model.actor, model.actor_target, model.critic_target)]
    metrics = both_update(model, learner, batch, 3)
    theirs = model.logger.name_to_value
    assert metrics["loss/critic"] == pytest.approx(theirs["train/critic_loss"], abs=1e-5)
    same(learner.critic.mlp.flat.grad, flat(model.critic, "grad"))
    assert flat(model.critic, "grad").abs().max() > 0.01
    assert "loss/actor" not in metrics
    ours = (learner.policy.net, learner.policy_target.net, learner.critic_target)
    for net, was in zip(ours, before, strict=True):
        assert torch.equal(net.mlp.flat.detach(), was)


def test_second_update_moves_actor_and_targets_as_the_peer_does(learners):
    model, learner, batch = learners
    both_update(model, learner, batch, 3)
    fill(learner.critic, flat(model.critic))  # Adam's rounding where a gradient is about 0
    metrics = both_update(model, learner, batch, 4)
    theirs = model.logger.name_to_value
    assert metrics["loss/actor"] == pytest.approx(theirs["train/actor_loss"], abs=1e-5)
    of_actor = flat(model.actor, "grad")
    assert of_actor.abs().max() > 0.005
    same(learner.policy.net.mlp.flat.grad, of_actor)
    clear = of_actor.abs() > 1e-4
    same(learner.policy.net.mlp.flat[clear], flat(model.actor)[clear])
    same(learner.policy_target.net.mlp.flat, flat(model.actor_target))
    same(learner.critic_target.mlp.flat, flat(model.critic_target))
