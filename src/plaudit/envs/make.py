"""Worlds by name: any Gymnasium id, one from a module, or one that a Python file registers."""

from __future__ import annotations

import copy as copying
import importlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import gymnasium

from plaudit.envs.copies import Copy
from plaudit.envs.guard import Clock, Hung, in_one_line
from plaudit.envs.masks import MaskedCodec, MaskedEnv, Place, has_mask, place_by_spaces
from plaudit.envs.native import Native
from plaudit.envs.processes import Processes
from plaudit.envs.settings import WorldSettings
from plaudit.envs.spaces import action_codec, obs_codec
from plaudit.envs.stack import Stacked
from plaudit.envs.sync import Sync
from plaudit.envs.worlds import Worlds
from plaudit.records.errors import UserError, nearest
from plaudit.records.imports import beside, load_module, loaded_file

EXTRAS = {
    "box2d": "gym",
    "pygame": "gym",
    "mujoco": "mujoco",
    "imageio": "mujoco",
    "ale_py": "atari",
}
"""By the library that an environment lacks: our extra that has it."""

REMEMBERS = {"gymnasium.envs.box2d.bipedal_walker", "gymnasium.envs.box2d.car_racing"}
"""Modules of environments that keep one Box2D world for all episodes: the order in which it solves
contacts depends on the episode before, so that seed and actions do not decide an episode. (The
lunar lander makes a world for each.)"""


def make_worlds(
    settings: WorldSettings,
    *,
    seed: int,
    num_envs: int | None = None,
    training: bool = True,
    gamma: float | None = None,
) -> Worlds:
    """Copies of the world that `settings` name, each episode with a seed that follows from `seed`.

    For evaluation (`training` false) observations are normalised by statistics that are copied and
    not updated, and rewards stay as they are; where they are scaled, `gamma` discounts the return
    whose deviation they are divided by. Raises UserError: no such environment, a library that
    it needs is missing, options that it does not know, or spaces that cannot be learned in.
    """
    num_envs = settings.num_envs if num_envs is None else num_envs
    make = {"sync": make_sync, "processes": make_processes, "native": make_native}
    worlds = make[_vector_kind(settings)](settings, seed=seed, num_envs=num_envs)
    if settings.frame_stack > 1:
        worlds = Stacked(worlds, settings.frame_stack)
    return _normalised(settings, worlds, training, gamma)


def _normalised(
    settings: WorldSettings, worlds: Worlds, training: bool, gamma: float | None
) -> Worlds:
    """The worlds with the scaling that `settings` ask for."""
    scales_reward = settings.normalise_reward and training
    if not (settings.normalise_obs or scales_reward):
        return worlds
    from plaudit.envs.normalise import Normalised, ReturnScale, kept_columns  # they load numba
    from plaudit.envs.statistics import Statistics

    spec, statistics, return_scale = worlds.obs_spec, None, None
    if settings.normalise_obs:
        statistics = Statistics(prod(spec.shape), kept_columns(spec))
    if scales_reward:
        if gamma is None:
            raise ValueError(
                "normalise_reward scales by the discounted return: give make_worlds gamma"
            )
        return_scale = ReturnScale(worlds.num_envs, gamma)
    return Normalised(worlds, statistics=statistics, return_scale=return_scale, frozen=not training)


def make_sync(settings: WorldSettings, *, seed: int, num_envs: int) -> Worlds:
    """Copies in this process, as they are: neither stacked nor normalised."""
    first = make_copy(settings, seed=seed, index=0)
    place = first.obs.place if isinstance(first.obs, MaskedCodec) else "none"
    others = range(1, num_envs)
    copies = [first] + [make_copy(settings, seed=seed, index=i, place=place) for i in others]
    actions = action_codec(first.env.action_space)
    return Sync(copies, first.obs, actions, timeout=settings.step_timeout)


def make_processes(settings: WorldSettings, *, seed: int, num_envs: int) -> Worlds:
    """Copies each in a process of its own; one more is made here, to learn its spaces."""
    copy = make_copy(settings, seed=seed, index=0)
    place = copy.obs.place if isinstance(copy.obs, MaskedCodec) else "none"
    action_spec = action_codec(copy.env.action_space).spec
    copy.close()
    return Processes(
        _MakeCopy(settings, seed, place),
        num_envs,
        name=settings.env,
        obs_spec=copy.obs.spec,
        action_spec=action_spec,
        timeout=settings.step_timeout,
    )


@dataclass(frozen=True)
class _MakeCopy:
    """`make_copy` of an index, in words that another process understands."""

    settings: WorldSettings
    seed: int
    place: Place

    def __call__(self, index: int) -> Copy:
        return make_copy(self.settings, seed=self.seed, index=index, place=self.place)


def make_native(settings: WorldSettings, *, seed: int, num_envs: int) -> Worlds:
    """The environment's own vector form."""
    spec = copying.deepcopy(find_spec(settings.env))
    if spec.vector_entry_point is None:
        raise UserError(f"{settings.env} has no vector form of its own; vector = sync steps copies")
    options = env_options(settings)
    if settings.max_episode_steps is not None:
        options["max_episode_steps"] = settings.max_episode_steps
    make: Callable[..., Any] = gymnasium.make_vec
    mode = "vector_entry_point"
    env = _called(settings, make, spec, num_envs=num_envs, vectorization_mode=mode, **options)
    return Native(
        env,
        name=settings.env,
        seed=seed,
        timeout=settings.step_timeout,
        heeds_masks=settings.action_mask,
    )


def _vector_kind(settings: WorldSettings) -> str:
    if settings.vector != "auto":
        return settings.vector
    spec = find_spec(settings.env)
    only_native = spec.entry_point is None and spec.vector_entry_point is not None
    return "native" if only_native else "sync"


def make_copy(
    settings: WorldSettings,
    *,
    seed: int,
    index: int,
    render_mode: str | None = None,
    place: Place | None = None,
) -> Copy:
    """One copy of a vector; its time limit is ours to count.

    `place` says where masks of actions lie; without it the copy's first reset is looked at.
    """
    env, limit = _make(settings, render_mode)
    heeds = settings.action_mask
    if place is None:
        place = "none"
        if heeds:
            place = place_by_spaces(env.observation_space, env.action_space, settings.env)
    remembers = any(kind.__module__ in REMEMBERS for kind in type(env.unwrapped).__mro__)
    remake = (lambda: _make(settings, render_mode)[0]) if remembers else None
    codec = obs_codec(env.observation_space)
    copy = Copy(
        env,
        codec,
        name=settings.env,
        index=index,
        seed=seed,
        limit=limit,
        remake=remake,
        heeds_masks=heeds,
    )
    if place is None:
        place = "info" if has_mask(_looked(copy, settings.step_timeout)) else "none"
    if place != "none":
        copy.masked(MaskedCodec(env.observation_space, env.action_space, place), MaskedEnv)
    return copy


def _looked(copy: Copy, timeout: float) -> Any:
    """What a copy's first reset says beside its observation; None where it went wrong."""
    clock = Clock(timeout)
    clock.start()
    clock.busy = True
    try:
        return copy.look()
    except Hung:
        return None  # `begin` resets again, and tells it
    finally:
        clock.stop()


def make_env(settings: WorldSettings, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """One Gymnasium environment with its time limit."""
    env, limit = _make(settings, render_mode)
    return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)


def _make(settings: WorldSettings, render_mode: str | None) -> tuple[Any, int | None]:
    """An environment, and the time limit that is left to the caller to count.

    The wrappers that check the order of calls and count steps cost a third of a microsecond a step;
    ours does both. Where an id has wrappers of its own outside its time limit, that limit stays.
    """
    spec = copying.deepcopy(find_spec(settings.env))
    limit = settings.max_episode_steps or spec.max_episode_steps
    options = env_options(settings)
    if render_mode is not None:
        options["render_mode"] = render_mode
    spec.order_enforce = False
    outside = not spec.additional_wrappers
    keep = -1 if outside or limit is None else limit
    make: Callable[..., Any] = gymnasium.make
    env = _called(settings, make, spec, max_episode_steps=keep, disable_env_checker=True, **options)
    return env, limit if outside else None


def _called(settings: WorldSettings, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Makes an environment; whatever goes wrong becomes one sentence."""
    try:
        with warnings.catch_warnings(), beside(loaded_file(settings.env.rpartition(":")[0])):
            if "render_mode" in options:  # the caller finds out whether there are pictures
                warnings.simplefilter("ignore")
            return make(*args, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(_missing(settings.env, error)) from error
    except ModuleNotFoundError as error:
        raise UserError(_missing(settings.env, error)) from error
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if found is None:
            raise UserError(f"{settings.env} could not be made: {in_one_line(error)}") from error
        if found[1] == "render_mode":
            raise UserError(f"{settings.env} draws no pictures: it takes no render_mode") from error
        raise UserError(f"{settings.env} has no option {found[1]!r} (env_options)") from error
    except Exception as error:
        raise UserError(f"{settings.env} could not be made: {in_one_line(error)}") from error


def _missing(name: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    for library, extra in EXTRAS.items():
        if library in text.lower():
            return f"{name} needs {library}, which is missing; pip install 'plaudit[{extra}]'"
    return f"{name} needs a library that is missing: {text}"


def find_spec(name: str) -> Any:
    """Gymnasium's specification of an id, `module:id` or `file.py:id`; raises UserError."""
    where, _, env_id = name.rpartition(":")
    before = set(gymnasium.registry)
    if where and loaded_file(where) is None:  # a file once in a process: its ids stay registered
        load_module(where, "environment")
    if env_id.startswith("ALE/"):
        _import_atari(name)
    if env_id in gymnasium.registry:
        return gymnasium.registry[env_id]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return gymnasium.spec(env_id)  # a name without version is its newest version
        except gymnasium.error.Error as error:
            new = [one for one in gymnasium.registry if one not in before]
            hint = nearest(env_id, new) or nearest(env_id, gymnasium.registry)
            place = f" in {where}" if where else ""
            text = "" if hint else "; gymnasium.register(id=..., entry_point=...) makes one known"
            raise UserError(f"no environment {env_id!r}{place}{hint}{text}") from error


def world_file(name: str) -> Path | None:
    """The Python file of your own that `file.py:id` or `module:id` names; None for others."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return Path(where).expanduser()
    if not where:
        return None
    here = Path.cwd().joinpath(*where.split("."))
    return next((f for f in (here.with_suffix(".py"), here / "__init__.py") if f.is_file()), None)


def _import_atari(name: str) -> None:
    """Registers the Atari games, which no longer come with Gymnasium."""
    try:
        gymnasium.register_envs(importlib.import_module("ale_py"))
    except ModuleNotFoundError as error:
        raise UserError(_missing(name, error)) from error


def env_options(settings: WorldSettings) -> dict[str, Any]:
    """The environment's keywords, each text read as a scalar of YAML is."""
    return {name: _scalar(text) for name, text in settings.env_options.items()}


def _scalar(text: str) -> Any:
    """-8.0 a number, true a boolean, null nothing; everything else, as 8x8, stays text."""
    word = text.strip()
    if word in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return word.lower() == "true"
    if word in ("null", "Null", "NULL", "~"):
        return None
    if re.fullmatch(r"[-+]?[0-9]+", word):
        return int(word)
    if re.fullmatch(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", word):
        return float(word)
    return text
