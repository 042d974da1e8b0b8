"""One of several processes that teach one model: each has some rows of a batch and the loss by
plain pickle; gradients and numbers are added up over all.

    python two_ranks.py RANK NUM_RANKS FOLDER

FOLDER holds the model, `work.pickle` (batch, losses, fields, rates) and gets `rank-RANK.pickle`.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from plaudit.engine.local import LocalActor, LocalCritic, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.models.formats.load import load_language_model
from plaudit.records.losses import cut


def roles_of(folder: Path) -> dict[str, Any]:
    """The three roles that are taught, with a head that is not zero."""
    torch.manual_seed(0)
    lm = load_language_model(folder / "model", dtype=torch.float64)
    backbone = SharedBackbone(lm, num_top_layers=2)
    made = {
        "actor": LocalActor(backbone),
        "critic": LocalCritic(backbone),
        "reward": LocalRewardModel(backbone),
    }
    for role in ("critic", "reward"):
        with torch.no_grad():
            made[role].head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return made


def rows_of(rank: int, num_ranks: int, batch: Any) -> list[int]:
    """The rows of every `num_ranks`-th prompt."""
    return [row for row, g in enumerate(batch.group.tolist()) if g % num_ranks == rank]


def step(
    role: Any, batch: Any, loss: Any, fields: Any, denominator: float, lr: float, *, ranks: int
) -> dict[str, float]:
    """One step of a role that holds some rows; what `role.update` does, with the sums over ranks."""
    numbers = role.accumulate(batch, loss, fields=fields, denominator=denominator)
    if ranks > 1:
        for parameter in role.learner.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
        names = sorted(numbers)
        sums = torch.tensor([numbers[name] for name in names], dtype=torch.float64)
        distributed.all_reduce(sums)
        numbers = dict(zip(names, sums.tolist(), strict=True))
    return {**numbers, "grad_norm": role.step(lr=lr)}


def work(folder: Path, rank: int, num_ranks: int) -> dict[str, Any]:
    """Takes every step of `work.pickle`; metrics of each, and the weights at the end."""
    batch, steps = pickle.loads((folder / "work.pickle").read_bytes())
    made = roles_of(folder)
    rows = rows_of(rank, num_ranks, batch)
    told = []
    for name, loss, fields, denominator, lr in steps:
        own = cut(fields, rows)
        told.append(
            step(made[name], batch.select(rows), loss, own, denominator, lr, ranks=num_ranks)
        )
    weights = {
        f"{name}.{key}": parameter.detach()
        for name, role in made.items()
        for key, parameter in role.learner.parameters.items()
    }
    return {"metrics": told, "weights": weights}


if __name__ == "__main__":
    own, ranks, place = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=own, world_size=ranks
    )
    (place / f"rank-{own}.pickle").write_bytes(pickle.dumps(work(place, own, ranks)))
    distributed.destroy_process_group()
