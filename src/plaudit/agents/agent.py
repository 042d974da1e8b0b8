"""An agent: a policy, the world it was made for, and how that world's observations are prepared.

    agent = plaudit.load("runs/cart")
    action = agent.act(obs)              # obs and action as Gymnasium has them
    agent.save("my-agent")               # agent.json, model.safetensors

The folder holds names and numbers only: nothing in it is code, nothing is unpickled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plaudit.agents.evaluation import Evaluator, Stateful
from plaudit.envs.copies import MASK
from plaudit.envs.make import make_env
from plaudit.envs.masks import MaskedCodec, Seen, place_by_spaces
from plaudit.envs.settings import WorldSettings
from plaudit.envs.spaces import ActionCodec, ObsCodec, Unfit, action_codec, obs_codec
from plaudit.envs.stack import stacked
from plaudit.envs.worlds import Array, Episode, Worlds
from plaudit.nets.policies import Policy, policy_from_facts
from plaudit.records.arrays import write_arrays
from plaudit.records.errors import UserError
from plaudit.records.files import read_json, write_json
from plaudit.records.state import Saved

if TYPE_CHECKING:
    from plaudit.envs.statistics import Statistics

FACTS, ARRAYS = "agent.json", "model.safetensors"
FORMAT = 1


class Agent:
    """Acts in a world as it was taught to."""

    def __init__(
        self,
        algorithm: str,
        settings: WorldSettings,
        policy: Policy[Any],
        statistics: Statistics | None = None,
    ) -> None:
        """`settings` say in which world; `statistics` are of its observations, where they are
        normalised. Other fields of a config that `settings` may be are not kept."""
        self.algorithm, self.policy, self.statistics = algorithm, policy, statistics
        fields = WorldSettings.model_fields
        self.settings = WorldSettings(**{name: getattr(settings, name) for name in fields})
        self.log: list[dict[str, Any]] = []
        """What the loop said while it learned, one row for each line of metrics."""
        self._codecs: tuple[ObsCodec, ActionCodec] | None = None
        self._frames: deque[Array] = deque(maxlen=self.settings.frame_stack)
        self._rng = np.random.default_rng(self.settings.seed)

    # --- acting

    def act(self, obs: Any, *, mask: Any = None, deterministic: bool = True) -> Any:
        """The action for one observation, both as the world's spaces have them.

        `mask` is the world's `info["action_mask"]`, where it says one there. Where observations are
        stacked or the policy remembers, call `begin` at the start of each episode.
        Raises UserError for an observation that is not of the world's space, or a missing mask.
        """
        see, do = self.codecs
        if isinstance(see, MaskedCodec):
            obs = self._seen(see, obs, mask)
        elif mask is not None:
            raise UserError(f"the agent of {self.settings.env} was taught without masks of actions")
        try:
            row = see.encode(obs)
        except Unfit as error:
            raise UserError(f"the agent of {self.settings.env} was given {error}") from None
        self._frames.append(row)
        while len(self._frames) < self.settings.frame_stack:
            self._frames.append(row)
        seen = stacked(self._frames, see.spec)[None]
        if self.statistics is not None:
            seen = self.statistics.apply(seen)
        action = self.policy.act(seen, None if deterministic else self._rng)
        return do.rows(self.policy.to_env(action))[0]

    def _seen(self, see: MaskedCodec, obs: Any, mask: Any) -> Seen:
        if see.place == "info" and mask is None:
            raise UserError(
                f"{self.settings.env} masks actions: agent.act(obs, mask=info['action_mask'])"
            )
        if see.place == "obs" and mask is not None:
            raise UserError(
                f"the observations of {self.settings.env} hold their mask: give no other"
            )
        return Seen(obs, {MASK: mask}, False)

    def begin(self) -> None:
        """Forgets the episode before."""
        self._frames.clear()
        if isinstance(self.policy, Stateful):
            self.policy.begin()

    @property
    def codecs(self) -> tuple[ObsCodec, ActionCodec]:
        """Between the world's spaces and arrays; makes the world once to learn its spaces."""
        if self._codecs is None:
            env = make_env(self.settings)
            see: ObsCodec = obs_codec(env.observation_space)
            if self.policy.net.obs_spec.num_barred:
                in_obs = place_by_spaces(env.observation_space, env.action_space, self.settings.env)
                see = MaskedCodec(env.observation_space, env.action_space, in_obs or "info")
            self._codecs = see, action_codec(env.action_space)
            env.close()
        return self._codecs

    def batch(
        self, rng: np.random.Generator | None = None
    ) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """The policy on encoded observations [B, ...], for `play`; greedy without `rng`."""
        policy = self.policy
        if isinstance(policy, Stateful):
            return RecurrentAct(policy, rng)
        return lambda obs: policy.to_env(policy.act(obs, rng))

    def copy_statistics(self, worlds: Worlds) -> None:
        """Lets worlds prepare observations as this agent is used to."""
        if self.statistics is not None:
            assert worlds.statistics is not None, "their settings normalise observations"
            worlds.statistics.copy_from(self.statistics)

    def evaluate(
        self, num_episodes: int = 100, *, seed: int | None = None, deterministic: bool = True
    ) -> list[Episode]:
        """Whole episodes on fresh copies of its world; `seed` begins other ones than training's."""
        chosen = self.settings if seed is None else self.settings.model_copy(update={"seed": seed})
        evaluator = Evaluator(chosen, num_episodes)
        rng = None if deterministic else np.random.default_rng(chosen.seed)
        try:
            return evaluator.episodes(self.batch(rng), self.copy_statistics)
        finally:
            evaluator.close()

    # --- keeping

    def state(self) -> Saved:
        """All of it: what `from_saved` reads."""
        arrays = {f"policy/{name}": array for name, array in self.policy.arrays().items()}
        facts = {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "settings": self.settings.model_dump(mode="json"),
            "policy": self.policy.facts(),
            "normalised": self.statistics is not None,
        }
        if self.statistics is not None:
            own = self.statistics.state()[0]
            arrays |= {f"statistics/{name}": array for name, array in own.items()}
        return arrays, facts

    def restore(self, saved: Saved) -> None:
        """Takes the policy's numbers back; the statistics are those of the worlds."""
        self.policy.load_arrays(_below(saved[0], "policy/"))

    @classmethod
    def from_saved(cls, saved: Saved) -> Agent:
        """The agent that gave `saved`."""
        arrays, facts = saved
        if facts.get("format") != FORMAT:
            raise UserError(
                f"the agent was saved in format {facts.get('format')!r}; this version reads {FORMAT}"
            )
        policy = policy_from_facts(facts["policy"])
        policy.load_arrays(_below(arrays, "policy/"))
        statistics = None
        if facts["normalised"]:
            from plaudit.envs.statistics import Statistics

            statistics = Statistics.from_saved((_below(arrays, "statistics/"), {}))
        return cls(facts["algorithm"], WorldSettings(**facts["settings"]), policy, statistics)

    def save(self, path: str | Path) -> Path:
        """Writes agent.json and model.safetensors into the folder `path`, which may be new."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, facts = self.state()
        temporary = folder / f".{ARRAYS}.tmp"
        write_arrays(temporary, arrays)
        temporary.replace(folder / ARRAYS)
        write_json(folder / FACTS, facts)
        return folder

    @classmethod
    def load(cls, path: str | Path) -> Agent:
        """The agent of a folder that `save` wrote; UserError where there is none."""
        folder = Path(path)
        if not (folder / FACTS).is_file():
            raise UserError(f"no agent in {folder}: it holds no {FACTS}")
        from safetensors.numpy import load_file

        return cls.from_saved((dict(load_file(folder / ARRAYS)), read_json(folder / FACTS)))


class RecurrentAct:
    """A policy with a memory as an `Act`, which `play` tells where episodes begin."""

    def __init__(self, policy: Any, rng: np.random.Generator | None) -> None:
        self._policy, self._rng = policy, rng
        self.begin, self.note = policy.begin, policy.note

    def __call__(self, obs: NDArray[Any]) -> NDArray[Any]:
        actions: NDArray[Any] = self._policy.to_env(self._policy.act(obs, self._rng))
        return actions


def _below(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
