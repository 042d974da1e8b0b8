"""Answers to be judged, without any model, and files of reward functions."""

from __future__ import annotations

from pathlib import Path

import torch

from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


def answers(*texts: str, **columns: list) -> Trajectories:
    """One answer to each prompt "p0", "p1", ...; its tokens are as many as its letters."""
    longest = max((len(text) for text in texts), default=0)
    mask = torch.tensor([[i < len(text) for i in range(longest)] for text in texts]).bool()
    prompts = [
        Prompt(f"p{i}", (1, 2), {name: values[i] for name, values in columns.items()})
        for i in range(len(texts))
    ]
    return Trajectories.of_answers(
        prompts=prompts,
        group=torch.arange(len(texts)),
        token=torch.ones(len(texts), longest, dtype=torch.int64),
        mask=mask.view(len(texts), longest),
        logp=torch.zeros(len(texts), longest),
        terminated=torch.ones(len(texts), dtype=torch.bool),
        texts=texts,
        sampling=Sampling(max_new_tokens=max(longest, 1)),
    )


def file_of(folder: Path, text: str, name: str = "mine") -> str:
    """A file of functions, written; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return str(folder / f"{name}.py")
