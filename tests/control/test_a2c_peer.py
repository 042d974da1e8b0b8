"""The first update of A2C against Stable-Baselines3, on the same weights and experience."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plaudit.agents.actor_critic import objective
from plaudit.agents.on_policy import descend
from plaudit.envs.rollout import Experience
from plaudit.nets.control_nets import network
from plaudit.nets.optim import FlatRMSprop
from plaudit.nets.policies import actor
from plaudit.records.spaces import ActionSpec, ObsSpec

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NUM_ENVS, NUM_STEPS, LIMIT = 8, 5, 3
LR, MAX_NORM = 0.01, 20.0  # large, so that the step is far larger than rounding


class Cuts(sb3.common.callbacks.BaseCallback):
    """Keeps what episodes were cut with, which the peer's buffer folds into the reward."""

    def __init__(self) -> None:
        super().__init__()
        self.finals: list[tuple[int, int, np.ndarray, bool]] = []

    def _on_step(self) -> bool:
        for copy, info in enumerate(self.locals["infos"]):
            if self.locals["dones"][copy]:
                cut = info.get("TimeLimit.truncated", False)
                at = self.model.rollout_buffer.pos  # counted up after this callback
                self.finals.append((copy, at, info["terminal_observation"], cut))
        return True


def peer(env: str):
    """The peer with one rollout collected by its own loop."""
    import gymnasium
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.manual_seed(1)
    worlds = DummyVecEnv(
        [lambda: Monitor(gymnasium.make(env, max_episode_steps=LIMIT)) for _ in range(NUM_ENVS)]
    )
    model = sb3.A2C(
        "MlpPolicy",
        worlds,
        seed=3,
        device="cpu",
        ent_coef=0.01,
        learning_rate=LR,
        max_grad_norm=MAX_NORM,
        policy_kwargs={
            "optimizer_class": RMSpropTFLike,
            "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5, "weight_decay": 0},
        },
    )
    cuts = Cuts()
    _, callback = model._setup_learn(10**6, cuts)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, NUM_STEPS)
    return model, cuts.finals


def as_ours(model, finals, spec: ActionSpec) -> Experience:
    """The peer's rollout, with what it added to the rewards of cut episodes taken out again."""
    buffer = model.rollout_buffer
    starts = np.concatenate((buffer.episode_starts[1:], model._last_episode_starts[None]))
    boundary = starts.T.astype(bool)
    terminated, reward = boundary.copy(), buffer.rewards.T.copy()
    for copy, t, obs, cut in finals:
        if cut:
            terminated[copy, t] = False
            with torch.no_grad():
                value = model.policy.predict_values(torch.from_numpy(obs[None])).item()
            reward[copy, t] -= model.gamma * value
    action = buffer.actions.swapaxes(0, 1)
    return Experience(
        obs=buffer.observations.swapaxes(0, 1).copy(),
        action=action[..., 0].astype(np.int64) if spec.kind == "discrete" else action.copy(),
        reward=reward.astype(np.float32),
        terminated=terminated,
        boundary=boundary,
        mask=np.ones_like(boundary),
        last_obs=model._last_obs.copy(),
        final_at=np.array([(copy, t) for copy, t, *_ in finals], np.int64).reshape(-1, 2),
        final_obs=np.array([obs for _, _, obs, _ in finals], np.float32),
    )


def weights(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Actor's and critic's, as our flat vectors hold them."""

    def flat(*layers):
        parts = [p.detach().flatten() for layer in layers for p in (layer.weight, layer.bias)]
        return torch.cat(parts)

    policy = model.policy
    of_actor, of_value = policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net
    return (
        flat(of_actor[0], of_actor[2], policy.action_net),
        flat(of_value[0], of_value[2], policy.value_net),
    )


@pytest.mark.parametrize(
    ("env", "spec", "num_obs"),
    [
        ("CartPole-v1", ActionSpec("discrete", (2,)), 4),
        ("Pendulum-v1", ActionSpec("box", (1,), (-2.0,), (2.0,)), 3),
    ],
)
def test_first_update_equals_the_peers(env, spec, num_obs):
    model, finals = peer(env)
    assert any(cut for *_, cut in finals)
    seen = as_ours(model, finals, spec)
    rng = np.random.default_rng(0)
    policy = actor(ObsSpec.vector(num_obs), spec, rng=rng)
    critic = network(ObsSpec.vector(num_obs), 1, rng=rng)
    before = weights(model)
    with torch.no_grad():
        policy.net.mlp.flat.copy_(before[0])
        critic.mlp.flat.copy_(before[1])

    optimiser = FlatRMSprop([*policy.parameters(), *critic.parameters()], lr=LR)
    numbers, back = objective(
        policy, critic, seen, gamma=0.99, lam=1.0, value_coef=1.0, entropy_coef=0.01
    )
    descend(optimiser, back, MAX_NORM)
    model.train()
    logged = model.logger.name_to_value
    assert numbers["loss/policy"] == pytest.approx(logged["train/policy_loss"], abs=1e-5)
    assert 2 * numbers["loss/value"] == pytest.approx(logged["train/value_loss"], rel=1e-4)
    assert -numbers["policy/entropy"] == pytest.approx(logged["train/entropy_loss"], abs=1e-5)
    after = weights(model)
    ours = (policy.net.mlp.flat.detach(), critic.mlp.flat.detach())
    for new, theirs, old in zip(ours, after, before, strict=True):
        assert float((theirs - old).abs().max()) > 5e-4
        np.testing.assert_allclose(new, theirs, rtol=0, atol=1e-5)
    if spec.kind == "box":
        theirs = model.policy.log_std.detach()
        assert float(theirs.abs().max()) > 1e-4
        np.testing.assert_allclose(policy.head.log_std.detach(), theirs, rtol=0, atol=1e-5)
