"""Puts pairs of clips into a store, for `plaudit studio --clips`; torch is loaded only for this."""

from __future__ import annotations

from plaudit.feedback.media import Media
from plaudit.feedback.store import FeedbackStore


def add_clips(
    store: FeedbackStore,
    env: str,
    *,
    agent: str | None = None,
    num: int = 20,
    seconds: float | None = None,
    seed: int = 0,
) -> tuple[int, int]:
    """How many pairs were new, and how many steps each clip has; the same call again adds none."""
    from plaudit.pipelines.control.clips import clip_pairs, load_agent

    player = None if agent is None else load_agent(agent)
    media = Media.beside(store)
    before, _ = store.size()
    steps = 0
    for item in clip_pairs(media, env, agent=player, num=num, seconds=seconds, seed=seed):
        store.add_items([item])
        steps = int(item.columns["steps"])
    return store.size()[0] - before, steps
