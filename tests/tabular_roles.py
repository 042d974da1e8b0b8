"""The four roles over a table of logits: trees of one-token answers.

A policy is a table [P, V] for P prompts, so that the optimum of the KL-regularised problem is known
in closed form and every expectation can be enumerated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt
from tree_world import TreeActor, TreeCritic, TreeReference, TreeReward, bandit

ONE_TOKEN = Sampling(max_new_tokens=1)


def prompts_of(num: int) -> list[Prompt]:
    return [Prompt(f"prompt {i}", (i,)) for i in range(num)]


class TableActor(TreeActor):
    def __init__(self, logits: Tensor) -> None:
        super().__init__(bandit(*logits.shape), logits)


class TableCritic(TreeCritic):
    def __init__(self, num_prompts: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(bandit(num_prompts, 1), dtype)


class TableReference(TreeReference):
    def __init__(self, logits: Tensor) -> None:
        super().__init__(bandit(*logits.shape), logits)


class TableReward(TreeReward):
    def __init__(self, reward: Tensor) -> None:
        super().__init__(bandit(*reward.shape), list(reward))
