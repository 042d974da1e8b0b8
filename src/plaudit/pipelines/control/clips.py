"""Pairs of clips of an agent in its world, as items that people compare.

Each clip is a piece of another episode; all are equally long, so that a sum of rewards over one
means the same as over the other. Who looks at them sees the film alone; the segment also keeps the
episode's seed and place, what was observed and done where that is not much, and the world's reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plaudit.agents.agent import Agent
from plaudit.agents.evaluation import Stateful
from plaudit.envs.clips import Clip, film_of, record_clips
from plaudit.envs.settings import WorldSettings
from plaudit.envs.worlds import Array
from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.media import Media

QUESTION = "Which of these does better?"
MOST_NUMBERS = 20_000
"""Observed numbers that are kept with a clip; of more, such as pictures, the seed must do."""


def clip_pairs(
    media: Media,
    env: str,
    *,
    agent: Agent | None = None,
    num: int = 20,
    seconds: float | None = None,
    seed: int = 0,
    question: str = QUESTION,
) -> Iterator[Item]:
    """`num` items of two clips each, of an agent or of actions drawn at random, films into `media`.

    The same arguments give the same items. Raises UserError where the world draws nothing, or its
    episodes are shorter than a clip of `seconds`.
    """
    settings = WorldSettings(env=env) if agent is None else agent.settings
    if agent is not None and settings.env != env:
        settings = settings.model_copy(update={"env": env})
    clips = record_clips(
        settings, None if agent is None else _policy(agent), 2 * num, seed=seed, seconds=seconds
    )
    who = "random" if agent is None else "agent"
    pair: list[Segment] = []
    for clip in clips:
        pair.append(_segment(clip, media, settings.env, who))
        if len(pair) == 2:
            digests = [segment.extra["media"]["digest"][:16] for segment in pair]
            columns = {"env": settings.env, "steps": len(clip.reward), "fps": clip.fps}
            yield Item(f"clips-{'-'.join(digests)}", question, tuple(pair), columns)
            pair = []


def load_agent(run: str | Path) -> Agent:
    """The agent of a run by its name or folder, or of a folder that `Agent.save` wrote."""
    from plaudit.pipelines.control.job import load

    return load(str(run), best=False)


def _policy(agent: Agent) -> Any:
    act = agent.batch()
    told: object = act
    if isinstance(told, Stateful):
        told.begin()
    statistics = agent.statistics

    def policy(obs: Array) -> Array:
        return act(obs if statistics is None else statistics.apply(obs))

    return policy


def _segment(clip: Clip, media: Media, env: str, who: str) -> Segment:
    data, kind = film_of(clip.frames, clip.fps)
    extra: dict[str, Any] = {
        "media": media.add(data, kind),
        "env": env,
        "seed": clip.seed,
        "episode": clip.episode,
        "start": clip.start,
        "steps": len(clip.reward),
        "reward": clip.reward.tolist(),
        "action": clip.action,
    }
    if clip.obs.size <= MOST_NUMBERS and clip.obs.dtype != np.uint8:
        extra["obs"] = np.asarray(clip.obs, np.float64).tolist()
    return Segment("", kind="clip", model=who, extra=extra)
