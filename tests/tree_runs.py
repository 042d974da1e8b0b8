"""Draws and whole runs on the tree of two prompts, from one start."""

from __future__ import annotations

from torch import Tensor

from plaudit.lm.rollout import Drawn, RolloutKeys, scored
from plaudit.records.events import Step
from tree_world import (
    TWO_PROMPTS,
    TreeActor,
    TreeJudge,
    TreeReference,
    some_logits,
    some_rewards,
)

START = some_logits(TWO_PROMPTS, 0)
REWARD = some_rewards(TWO_PROMPTS, 1)


def drawn(*tables: list[Tensor], num: int = 8, keys: RolloutKeys | None = None) -> Drawn:
    """Answers of the start to both prompts, with scores by table."""
    batch = TWO_PROMPTS.draw(START, TWO_PROMPTS.prompts, num, seed=4)
    judge = TreeJudge(TWO_PROMPTS, {f"r{i}": table for i, table in enumerate(tables or (REWARD,))})
    return scored(keys or RolloutKeys(answers_per_prompt=num), batch, judge, taken=2)


def steps_of(loop, config, *, judge=None, start=START, sampling=None, **roles) -> list[dict]:
    """What a run logs, step by step."""
    tree = TWO_PROMPTS
    events = loop(
        config,
        actor=roles.pop("actor", None) or TreeActor(tree, start),
        judge=judge or TreeJudge(tree, {"score": REWARD}),
        reference=TreeReference(tree, START),
        prompts=list(tree.prompts),
        sampling=sampling or tree.sampling,
        seed=0,
        **roles,
    )
    return [dict(event.metrics) for event in events if isinstance(event, Step)]
