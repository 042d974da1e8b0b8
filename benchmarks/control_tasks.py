"""What benchmarks/control.py measures: tasks in both libraries' words, and the floor of each.

The floor is what an algorithm cannot do without on one core: its matrix products, each measured alone
at its shape in NumPy, and the steps of the bare environment.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from machine import best_seconds

# --- what an algorithm cannot do without


@cache
def product_seconds(rows: int, inner: int, columns: int) -> float:
    """One float32 product [rows, inner] @ [inner, columns], into memory that is there."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, inner), dtype=np.float32)
    b = rng.standard_normal((inner, columns), dtype=np.float32)
    out = np.empty((rows, columns), np.float32)
    count = max(20, min(2000, int(2e7 / (rows * inner * columns))))

    def many() -> None:
        for _ in range(count):
            np.matmul(a, b, out=out)

    return best_seconds(many) / count


def forward(sizes: tuple[int, ...], rows: int) -> float:
    """Seconds of a net's products for so many rows."""
    return sum(product_seconds(rows, i, o) for i, o in itertools.pairwise(sizes))


def backward(
    sizes: tuple[int, ...], rows: int, *, weights: bool = True, inputs: bool = False
) -> float:
    """Seconds of the products of its gradients: of the weights, and of what each layer was given."""
    total = 0.0
    for layer, (i, o) in enumerate(itertools.pairwise(sizes)):
        if weights:
            total += product_seconds(i, rows, o)
        if layer or inputs:
            total += product_seconds(rows, o, i)
    return total


def on_policy_floor(
    *, num_envs: int, num_steps: int, num_epochs: int, minibatch: int, inputs: int, outputs: int
) -> float:
    """Seconds a step of actor and critic of 64×64: act, value, and learn."""
    actor, critic = (inputs, 64, 64, outputs), (inputs, 64, 64, 1)
    rows = num_envs * num_steps
    acting = num_steps * forward(actor, num_envs) + forward(critic, rows)
    update = sum(forward(net, minibatch) + backward(net, minibatch) for net in (actor, critic))
    return (acting + num_epochs * rows / minibatch * update) / rows


def dqn_floor() -> float:
    """256×256 on CartPole: a batch of 64 every second step, twice forwards and once back."""
    net, rows = (4, 256, 256, 2), 64
    greedy = 1 - (0.16 * 0.52 + 0.84 * 0.04)  # share of the steps that ask the net
    update = 2 * forward(net, rows) + backward(net, rows)
    return greedy * forward(net, 1) + 0.5 * update


def sac_floor() -> float:
    """256×256 on Pendulum: one batch of 256 a step through actor, twin critics and their targets."""
    actor, critic, rows = (3, 256, 256, 2), (4, 256, 256, 1), 256
    acting = forward(actor, 1) + 2 * forward(actor, rows)
    targets = 2 * forward(critic, rows)
    critics = 2 * (forward(critic, rows) + backward(critic, rows))
    through = 2 * (forward(critic, rows) + backward(critic, rows, weights=False, inputs=True))
    return acting + targets + critics + through + backward(actor, rows)


def td3_floor() -> float:
    """400×300 on Pendulum: a batch of 256 a step through the critics, every second through the actor."""
    actor, critic, rows = (3, 400, 300, 1), (4, 400, 300, 1), 256
    targets = forward(actor, rows) + 2 * forward(critic, rows)
    critics = 2 * (forward(critic, rows) + backward(critic, rows))
    through = forward(critic, rows) + backward(critic, rows, weights=False, inputs=True)
    of_actor = forward(actor, rows) + through + backward(actor, rows)
    return forward(actor, 1) + targets + critics + 0.5 * of_actor


def environment_seconds(name: str) -> float:
    """A step of the bare environment with random actions, resets included."""
    import gymnasium

    env = gymnasium.make(name).unwrapped
    limit = gymnasium.spec(name).max_episode_steps
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(5000)]

    def steps() -> None:
        env.reset(seed=0)
        length = 0
        for action in actions:
            length += 1
            if env.step(action)[2] or length == limit:
                env.reset()
                length = 0

    return best_seconds(steps) / len(actions)


# --- the tasks


@dataclass(frozen=True)
class Task:
    """An algorithm on an environment, with the same settings in both libraries' words."""

    name: str
    env: str
    steps: int
    quick_steps: int
    goal: float | None
    ours: dict[str, Any]
    theirs: Callable[[str, int], Any]
    floor: Callable[[], float]
    source: str


def sb3_model(kind: str, env: str, num_envs: int, seed: int, **settings: Any) -> Any:
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env

    worlds = make_vec_env(env, n_envs=num_envs, seed=seed)
    make = getattr(stable_baselines3, kind)
    return make("MlpPolicy", worlds, seed=seed, device="cpu", **settings)


def td3_model(env: str, seed: int) -> Any:
    from stable_baselines3.common.noise import NormalActionNoise

    return sb3_model(
        "TD3",
        env,
        1,
        seed,
        learning_rate=1e-3,
        gamma=0.98,
        buffer_size=20_000,
        learning_starts=100,
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs={"net_arch": [400, 300]},
    )


def rmsprop_as_in_the_paper() -> dict[str, Any]:
    """The peer's own option for the form of Mnih et al. 2016; its default is torch's."""
    from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike

    kind = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}}
    return {"use_rms_prop": False, "policy_kwargs": kind}


TASKS = [
    Task(
        "ppo",
        "CartPole-v1",
        100_000,
        8192,
        5.0,
        {
            "num_envs": 8,
            "num_steps": 32,
            "minibatch_size": 256,
            "num_epochs": 20,
            "gamma": 0.98,
            "lam": 0.8,
            "lr": 1e-3,
            "lr_schedule": "linear",
            "clip": 0.2,
            "clip_schedule": "linear",
        },
        lambda env, seed: sb3_model(
            "PPO",
            env,
            8,
            seed,
            n_steps=32,
            batch_size=256,
            n_epochs=20,
            gamma=0.98,
            gae_lambda=0.8,
            learning_rate=lambda left: 1e-3 * left,
            clip_range=lambda left: 0.2 * left,
        ),
        partial(
            on_policy_floor,
            num_envs=8,
            num_steps=32,
            num_epochs=20,
            minibatch=256,
            inputs=4,
            outputs=2,
        ),
        "rl-baselines3-zoo",
    ),
    Task(
        "a2c",
        "CartPole-v1",
        500_000,
        20_000,
        4.0,
        {"num_envs": 8},
        lambda env, seed: sb3_model("A2C", env, 8, seed, **rmsprop_as_in_the_paper()),
        partial(
            on_policy_floor,
            num_envs=8,
            num_steps=5,
            num_epochs=1,
            minibatch=40,
            inputs=4,
            outputs=2,
        ),
        "rl-baselines3-zoo: 8 copies, the peer's defaults, with its RMSpropTFLike (the paper's form of "
        "RMSprop, which ours has)",
    ),
    Task(
        "dqn",
        "CartPole-v1",
        50_000,
        5000,
        2.5,
        {
            "lr": 2.3e-3,
            "lr_schedule": "constant",
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "gamma": 0.99,
            "target": "q",
            "n_step": 1,
            "target_every": 10,
            "train_every": 256,
            "gradient_steps": 128,
            "epsilon_fraction": 0.16,
            "epsilon_end": 0.04,
            "hidden": (256, 256),
        },
        lambda env, seed: sb3_model(
            "DQN",
            env,
            1,
            seed,
            learning_rate=2.3e-3,
            batch_size=64,
            buffer_size=100_000,
            learning_starts=1000,
            gamma=0.99,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            exploration_fraction=0.16,
            exploration_final_eps=0.04,
            policy_kwargs={"net_arch": [256, 256]},
        ),
        dqn_floor,
        "rl-baselines3-zoo",
    ),
    Task(
        "sac",
        "Pendulum-v1",
        10_000,
        1500,
        2.0,
        {"lr": 1e-3, "batch_size": 256, "learning_starts": 100, "hidden": (256, 256)},
        lambda env, seed: sb3_model("SAC", env, 1, seed, learning_rate=1e-3),
        sac_floor,
        "rl-baselines3-zoo",
    ),
    Task(
        "td3",
        "Pendulum-v1",
        10_000,
        1500,
        None,
        {
            "lr": 1e-3,
            "gamma": 0.98,
            "batch_size": 256,
            "buffer_size": 20_000,
            "learning_starts": 100,
            "hidden": (400, 300),
        },
        td3_model,
        td3_floor,
        "rl-baselines3-zoo, but learning from step 100, not 10,000 (that is where it ends here)",
    ),
]
