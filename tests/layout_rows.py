"""Batches whose every token is another number, to see where each goes."""

from __future__ import annotations

import torch

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


def batch_of(prompts: list[int], answers: list[tuple[int, int]]) -> Trajectories:
    """Prompts of the given lengths; answers as (prompt, length), every token another number."""
    token = iter(range(1, 10_000))
    made = tuple(Prompt("", tuple(next(token) for _ in range(n))) for n in prompts)
    longest = max((n for _, n in answers), default=1)
    answer = torch.zeros((len(answers), max(longest, 1)), dtype=torch.int64)
    mask = torch.zeros(answer.shape, dtype=torch.bool)
    for row, (_, n) in enumerate(answers):
        answer[row, :n] = torch.tensor([next(token) for _ in range(n)], dtype=torch.int64)
        mask[row, :n] = True
    return Trajectories.of_answers(
        prompts=made,
        group=torch.tensor([g for g, _ in answers]),
        token=answer,
        mask=mask,
        logp=torch.zeros(answer.shape),
        terminated=torch.ones(len(answers), dtype=torch.bool),
        texts=("",) * len(answers),
        sampling=Sampling(max_new_tokens=max(longest, 1)),
    )
