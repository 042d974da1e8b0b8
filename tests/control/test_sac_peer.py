"""The first update of SAC against Stable-Baselines3: same weights, batch and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.control.sac import Learner, SACConfig
from plaudit.envs.replay import Batch
from plaudit.nets.control_nets import Net
from plaudit.records.spaces import ActionSpec, ObsSpec

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

ENVS = {"Pendulum-v1": (3, 1), "MountainCarContinuous-v0": (2, 1)}
HIDDEN, NUM_ROWS, GAMMA, TAU = (32, 32), 64, 0.97, 0.01


def flat(*layers: nn.Linear) -> torch.Tensor:
    """Weights in our order: each layer's weight, then its bias."""
    return torch.cat([p.detach().flatten() for layer in layers for p in layer.parameters()])


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def stacked(mean: nn.Linear, log_std: nn.Linear, what: str) -> torch.Tensor:
    """The two last layers of the peer's actor as our one: a weight and a bias."""
    weight = torch.cat([getattr_(mean.weight, what), getattr_(log_std.weight, what)])
    bias = torch.cat([getattr_(mean.bias, what), getattr_(log_std.bias, what)])
    return torch.cat([weight.flatten(), bias])


def getattr_(p: nn.Parameter, what: str) -> torch.Tensor:
    found = p.detach() if what == "weight" else p.grad
    assert found is not None
    return found.clone()


def actor_of(model, what: str) -> torch.Tensor:
    hidden = torch.cat([getattr_(p, what).flatten() for p in model.actor.latent_pi.parameters()])
    return torch.cat([hidden, stacked(model.actor.mu, model.actor.log_std, what)])


def fill(net: Net, weights: torch.Tensor) -> None:
    with torch.no_grad():
        net.mlp.flat.copy_(weights)


def batches(rng: np.random.Generator, num_obs: int, num_dims: int):
    """The same rows for both: a fifth of them terminated."""
    from stable_baselines3.common.buffers import ReplayBufferSamples

    obs, next_obs = rng.standard_normal((2, NUM_ROWS, num_obs)).astype(np.float32)
    action = rng.uniform(-1, 1, (NUM_ROWS, num_dims)).astype(np.float32)
    reward = rng.standard_normal(NUM_ROWS).astype(np.float32)
    terminated = rng.random(NUM_ROWS) < 0.2
    discount = np.where(terminated, 0, GAMMA).astype(np.float32)
    ours = Batch(obs, action, reward, next_obs, discount, np.arange(NUM_ROWS))
    columns = (obs, action, next_obs, terminated[:, None].astype(np.float32), reward[:, None])
    return ours, ReplayBufferSamples(*map(torch.from_numpy, columns))


@pytest.fixture(params=ENVS)
def updated(request):
    """Both learners after one update, the peer's gradients as they were at each step."""
    num_obs, num_dims = ENVS[request.param]
    torch.manual_seed(0)
    model = sb3.SAC(
        "MlpPolicy",
        request.param,
        policy_kwargs={"net_arch": list(HIDDEN)},
        gamma=GAMMA,
        tau=TAU,
        device="cpu",
    )
    from stable_baselines3.common.logger import configure

    model.set_logger(configure(None, []))
    model.actor.action_dist.epsilon = 0.0  # theirs is log(1 − tanh² + 1e-6), ours is exact
    rng = np.random.default_rng(1)
    ours, theirs = batches(rng, num_obs, num_dims)
    model.replay_buffer.sample = lambda *args, **keys: theirs

    bounds = (tuple(model.action_space.low), tuple(model.action_space.high))
    config = SACConfig(env=request.param, hidden=HIDDEN, gamma=GAMMA, tau=TAU)
    spec = ActionSpec("box", (num_dims,), *bounds)
    learner = Learner(config, ObsSpec.vector(num_obs), spec, rng)
    fill(learner.policy.net, actor_of(model, "weight"))
    fill(learner.critic, flat(*linears(model.critic)))
    # Targets that differ from the critics, so that mixing them up would show.
    with torch.no_grad():
        for p in model.critic_target.parameters():
            p.add_(0.05 * torch.randn_like(p))
    fill(learner.target, flat(*linears(model.critic_target)))

    seen: dict[str, torch.Tensor] = {}
    keep_gradient(model.critic.optimizer, lambda: [p.grad for p in model.critic.parameters()], seen)
    torch.manual_seed(5)
    model.train(gradient_steps=1, batch_size=NUM_ROWS)
    torch.manual_seed(5)
    shape = (NUM_ROWS, num_dims)
    noise = np.stack([torch.normal(torch.zeros(shape), 1.0).numpy() for _ in range(2)])
    metrics = learner.update(ours, noise)
    return model, learner, metrics, seen["gradient"]


def keep_gradient(optimizer, gradients, seen) -> None:
    """The critics' gradients before their step: the actor's loss adds to them afterwards."""
    step = optimizer.step

    def watched(*args, **keys):
        seen["gradient"] = torch.cat([g.clone().flatten() for g in gradients()])
        return step(*args, **keys)

    optimizer.step = watched


def test_losses_are_the_peers(updated):
    model, _, metrics, _ = updated
    theirs = model.logger.name_to_value
    assert metrics["loss/critic"] == pytest.approx(theirs["train/critic_loss"], abs=1e-5)
    assert metrics["loss/actor"] == pytest.approx(theirs["train/actor_loss"], abs=1e-5)
    assert metrics["sac/alpha"] == theirs["train/ent_coef"] == 1.0


def test_gradients_are_the_peers(updated):
    model, learner, _, of_critic = updated
    ours = learner.critic.mlp.flat.grad
    torch.testing.assert_close(ours, of_critic, atol=1e-5, rtol=0)
    assert of_critic.abs().max() > 0.01
    of_actor = actor_of(model, "grad")
    torch.testing.assert_close(learner.policy.net.mlp.flat.grad, of_actor, atol=1e-5, rtol=0)
    assert of_actor.abs().max() > 0.01
    of_alpha = model.log_ent_coef.grad
    assert of_alpha is not None
    torch.testing.assert_close(learner.temperature.log.grad, of_alpha, atol=1e-5, rtol=0)


def test_weights_after_the_update_are_the_peers(updated):
    """Adam divides by the gradient's size, so where it is about 0 the step is a matter of rounding."""
    model, learner, _, of_critic = updated
    clear = of_critic.abs() > 1e-4
    assert clear.float().mean() > 0.5
    theirs = flat(*linears(model.critic))
    torch.testing.assert_close(learner.critic.mlp.flat[clear], theirs[clear], atol=1e-5, rtol=0)
    theirs = flat(*linears(model.critic_target))
    torch.testing.assert_close(learner.target.mlp.flat, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        learner.temperature.log.detach(), model.log_ent_coef.detach(), atol=1e-6, rtol=0
    )
