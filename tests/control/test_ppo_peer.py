"""The first updates of PPO against Stable-Baselines3, on the same weights and experience."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plaudit.agents.on_policy import advantage_batch, descend
from plaudit.control.ppo import PPOConfig, objective
from plaudit.envs.rollout import Experience
from plaudit.nets.control_nets import network
from plaudit.nets.optim import FlatAdam
from plaudit.nets.policies import actor
from plaudit.records.spaces import ActionSpec, ObsSpec

sb3 = pytest.importorskip("stable_baselines3")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NUM_ENVS, NUM_STEPS, LIMIT = 4, 48, 10


class Watched(sb3.common.callbacks.BaseCallback):
    """Keeps what the worlds said at truncations, which the peer's buffer folds into the reward."""

    def __init__(self) -> None:
        super().__init__()
        self.finals: list[tuple[int, int, np.ndarray]] = []

    def _on_step(self) -> bool:
        t = self.model.rollout_buffer.pos  # counted up after this callback
        for copy, info in enumerate(self.locals["infos"]):
            if self.locals["dones"][copy]:
                truncated = info.get("TimeLimit.truncated", False)
                self.finals.append((copy, t, info["terminal_observation"], truncated))
        return True


def peer(env: str, spec: ActionSpec, **keys):
    """SB3's model with one rollout collected, and the same rollout as ours."""
    import gymnasium
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    torch.manual_seed(0)
    worlds = DummyVecEnv(
        [lambda: Monitor(gymnasium.make(env, max_episode_steps=LIMIT)) for _ in range(NUM_ENVS)]
    )
    model = sb3.PPO(
        "MlpPolicy",
        worlds,
        n_steps=NUM_STEPS,
        batch_size=NUM_ENVS * NUM_STEPS,
        n_epochs=1,
        gamma=0.97,
        gae_lambda=0.9,
        seed=3,
        device="cpu",
        ent_coef=0.01,
        **keys,
    )
    watched = Watched()
    _, callback = model._setup_learn(10**6, watched)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, NUM_STEPS)
    buffer = model.rollout_buffer
    starts = np.concatenate((buffer.episode_starts[1:], model._last_episode_starts[None]))
    boundary = starts.T.astype(bool)
    terminated = boundary.copy()
    reward = buffer.rewards.T.copy()
    finals = watched.finals
    for copy, t, obs, truncated in finals:
        assert boundary[copy, t]
        if truncated:
            terminated[copy, t] = False
            with torch.no_grad():  # what the peer added to the reward is taken out again
                value = model.policy.predict_values(torch.from_numpy(obs[None])).item()
            reward[copy, t] -= model.gamma * value
    assert any(truncated for *_, truncated in finals)
    action = buffer.actions.swapaxes(0, 1)
    seen = Experience(
        obs=buffer.observations.swapaxes(0, 1).copy(),
        action=action[..., 0].astype(np.int64) if spec.kind == "discrete" else action.copy(),
        reward=reward.astype(np.float32),
        terminated=terminated,
        boundary=boundary,
        mask=np.ones_like(boundary),
        last_obs=model._last_obs.copy(),
        final_at=np.array([(copy, t) for copy, t, *_ in finals], np.int64),
        final_obs=np.array([obs for _, _, obs, _ in finals], np.float32),
    )
    return model, seen


def flat(*layers: torch.nn.Linear) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for layer in layers for p in (layer.weight, layer.bias)])


def weights(model) -> tuple[torch.Tensor, torch.Tensor]:
    policy = model.policy
    actor, value = policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net
    return (
        flat(actor[0], actor[2], policy.action_net),
        flat(value[0], value[2], policy.value_net),
    )


@pytest.mark.parametrize(
    ("env", "spec", "num_obs"),
    [
        ("CartPole-v1", ActionSpec("discrete", (2,)), 4),
        ("Pendulum-v1", ActionSpec("box", (1,), (-2.0,), (2.0,)), 3),
    ],
)
def test_first_update_equals_the_peers(env, spec, num_obs):
    model, seen = peer(env, spec)
    config = PPOConfig(env=env, gamma=0.97, lam=0.9, entropy_coef=0.01, minibatch_size=10**6)
    rng = np.random.default_rng(0)
    obs_spec = ObsSpec.vector(num_obs)
    policy = actor(obs_spec, spec, hidden=(64, 64), activation="tanh", rng=rng)
    critic = network(obs_spec, 1, hidden=(64, 64), activation="tanh", rng=rng)
    actor_flat, critic_flat = weights(model)
    with torch.no_grad():
        next(policy.net.parameters()).copy_(actor_flat)
        next(critic.parameters()).copy_(critic_flat)

    batch = advantage_batch(seen, policy, critic, gamma=0.97, lam=0.9)
    buffer = model.rollout_buffer
    np.testing.assert_allclose(batch.adv.view(NUM_ENVS, -1).T, buffer.advantages, atol=2e-5)
    np.testing.assert_allclose(batch.ret.view(NUM_ENVS, -1).T, buffer.returns, atol=2e-5)
    np.testing.assert_allclose(batch.logp.view(NUM_ENVS, -1).T, buffer.log_probs, atol=1e-5)

    optimiser = FlatAdam([*policy.parameters(), *critic.parameters()], lr=3e-4, eps=1e-5)
    numbers, back = objective(config, policy, critic, batch, 0.2)
    descend(optimiser, back, config.max_grad_norm)
    model.train()
    logged = model.logger.name_to_value
    assert numbers["loss/policy"] == pytest.approx(logged["train/policy_gradient_loss"], abs=1e-5)
    assert numbers["loss/value"] == pytest.approx(logged["train/value_loss"] / 2, rel=1e-5)
    actor_flat, critic_flat = weights(model)
    np.testing.assert_allclose(
        next(policy.net.parameters()).detach(), actor_flat, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(next(critic.parameters()).detach(), critic_flat, rtol=0, atol=1e-5)
