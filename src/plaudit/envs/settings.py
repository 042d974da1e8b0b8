"""Which world, how many copies of it, and what is done to its observations and rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.records.config import Config


class WorldSettings(Config):
    """The part of every control config that says in which world to act."""

    env: str = Field(
        "CartPole-v1",
        description="A Gymnasium id; module:Name-v0 imports the module first; file.py:Name-v0 too.",
    )
    env_options: dict[str, str] = Field(
        default_factory=dict, description="Keywords for the environment: map_name=8x8 gravity=-8."
    )
    num_envs: int = Field(1, ge=1, description="Copies of the environment that act side by side.")
    vector: Literal["auto", "sync", "processes", "native"] = Field(
        "auto",
        description="How copies are stepped: in turn in this process, each in a process of its own, "
        "or by the environment's own vector form; auto: sync, native where there is nothing else.",
    )
    max_episode_steps: int | None = Field(
        None, ge=1, description="Steps after which an episode is cut off; none: the id's own limit."
    )
    frame_stack: int = Field(
        1, ge=1, description="Observations shown together, the latest last; 1: only the latest."
    )
    normalise_obs: bool = Field(
        False, description="Scale observations by their running mean and deviation, to within 10."
    )
    normalise_reward: bool = Field(
        False, description="Divide rewards by the running deviation of the discounted return."
    )
    action_mask: bool = Field(
        True,
        description="Never take actions that the environment masks: action_mask in its info, or in "
        "its Dict observation; false: ignore a mask in info, and see one in an observation.",
    )
    step_timeout: float = Field(
        60.0, gt=0, description="Seconds after which one step of an environment counts as hung."
    )
    seed: int = Field(
        0, ge=0, description="Decides every draw: episodes, actions, weights, batches."
    )
