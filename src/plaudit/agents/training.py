"""What every control loop begins with and ends by: worlds, generators, a monitor, parts to be saved.

A loop makes its `Training` first, nets for its worlds next, and calls `begin` with them; the steps
in between are its own.
"""

from __future__ import annotations

from typing import Any

from plaudit.agents.agent import Agent
from plaudit.agents.loop import Loop, Monitor
from plaudit.envs.make import make_worlds
from plaudit.envs.normalise import Normalised
from plaudit.envs.rewarded import StepReward, rewarded
from plaudit.envs.statistics import Statistics
from plaudit.envs.worlds import Array, Worlds
from plaudit.nets.policies import Policy
from plaudit.records.errors import UserError
from plaudit.records.events import Done
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Parts, Savable, Saved, SeededGenerator


class Training:
    """One training of an agent: in which worlds, by which draws, watched by whom."""

    def __init__(
        self,
        name: str,
        config: Loop,
        worlds: Worlds | None,
        reward: StepReward | None,
        *,
        gamma: float,
    ) -> None:
        """`worlds` are the caller's, who also closes them; without them they are the config's."""
        self.name, self.config = name, config
        self._is_closed_here = worlds is None
        self.worlds = worlds_of(config, worlds, reward, seed=config.seed, gamma=gamma)
        self.obs_spec, self.action_spec = self.worlds.obs_spec, self.worlds.action_spec
        self.init_rng = SeededGenerator(config.seed, 0).rng
        """Draws first weights."""
        self.draws = SeededGenerator(config.seed, 1)
        self.rng = self.draws.rng
        """Draws all else."""
        self.lost_episodes = False
        """True where the worlds could not go on exactly from what was saved: others have begun."""

    def begin(self, policy: Policy[Any], saved: Saved | None, **parts: Savable) -> Array:
        """The observations [B, ...] to act on first; all parts restored from `saved`.

        `parts` are what the algorithm must remember beside its policy, by their names in
        checkpoints.
        """
        worlds = self.worlds
        obs = worlds.reset() if saved is None else None
        self.monitor, self.parts = watched(
            self.name,
            self.config,
            policy,
            worlds.statistics,
            saved,
            **parts,
            worlds=worlds,
            draws=self.draws,
        )
        if obs is None:
            obs = self.parts.restored["worlds"]
            self.lost_episodes = not worlds.gives_state
        return obs

    def end(self) -> Done:
        """The loop's last word; closes the worlds that were made here."""
        if self._is_closed_here:
            self.worlds.close()
        return self.monitor.done()


def watched(
    name: str,
    config: Loop,
    policy: Policy[Any],
    statistics: Statistics | None,
    saved: Saved | None,
    **parts: Savable,
) -> tuple[Monitor, Parts]:
    """The monitor of an agent with this policy, and all that is saved; restored from `saved`."""
    agent = Agent(name, config, policy, statistics)
    monitor = Monitor(config, agent.batch(), agent.copy_statistics)
    kept = Parts(agent=agent, **parts, watch=monitor)  # names in checkpoints: they stay
    if saved is not None:
        kept.restore(saved)
    return monitor, kept


def worlds_of(
    config: Loop, worlds: Worlds | None, reward: StepReward | None, *, seed: int, gamma: float
) -> Worlds:
    """The worlds to train in: those given, else the config's; with another reward where one is given.

    Raises UserError where the worlds given are not as the config says.
    """
    if worlds is None:
        worlds = make_worlds(config, seed=seed, gamma=gamma)
    else:
        _check_fits(config, worlds)
    if reward is None:
        return worlds
    if (config.normalise_obs or config.normalise_reward) and not isinstance(worlds, Normalised):
        key = "normalise_obs" if config.normalise_obs else "normalise_reward"
        raise UserError(
            f"{key} = true, but the worlds given are not as make_worlds gives them, so that the reward"
            " given cannot be put beneath the scaling; leave one of the three out"
        )
    return rewarded(worlds, reward)


def _check_fits(config: Loop, worlds: Worlds) -> None:
    """What was given must be as the config says, since the agent keeps and is judged by the config."""
    if worlds.num_envs != config.num_envs:
        raise UserError(
            f"the worlds given are {worlds.num_envs} copies, but num_envs = {config.num_envs}"
        )
    if config.normalise_obs != (worlds.statistics is not None):
        own = "do not scale" if config.normalise_obs else "scale"
        value = str(config.normalise_obs).lower()
        raise UserError(f"the worlds given {own} observations, but normalise_obs = {value}")
    here = config.model_copy(update={"vector": "sync"}) if config.vector == "processes" else config
    ours = make_worlds(here, seed=config.seed, num_envs=1, training=False)
    ours.close()
    if worlds.obs_spec != ours.obs_spec:
        raise UserError(
            f"the worlds given show {_of_obs(worlds.obs_spec)}, but {config.env} with this config"
            f" shows {_of_obs(ours.obs_spec)}"
        )
    if worlds.action_spec != ours.action_spec:
        raise UserError(
            f"the worlds given take actions that are {_of_actions(worlds.action_spec)}, but those of"
            f" {config.env} are {_of_actions(ours.action_spec)}"
        )


def _of_obs(spec: ObsSpec) -> str:
    kinds = ", ".join(f"{piece.kind} {piece.shape}" for piece in spec.pieces)
    return f"observations of shape {spec.shape} ({kinds})"


def _of_actions(spec: ActionSpec) -> str:
    bounds = f" from {spec.low} to {spec.high}" if spec.kind == "box" else ""
    return f"{spec.kind} {spec.sizes}{bounds}"
