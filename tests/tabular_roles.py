"""The four roles over a table of logits: language-model algorithms on worlds with known answers.

A policy is a table [P, V] for P prompts and one-token answers, so that the optimum of the
KL-regularised problem is known in closed form and every expectation can be enumerated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.records.losses import Part
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

ONE_TOKEN = Sampling(max_new_tokens=1)


def prompts_of(num: int) -> list[Prompt]:
    return [Prompt(f"prompt {i}", (i,)) for i in range(num)]


class TableActor:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.clone().requires_grad_(True)
        self.optimiser = torch.optim.Adam([self.logits], eps=1e-8)
        self.version = 0

    def generate(
        self, prompts, *, num_answers: int, sampling: Sampling, seed: int, replier=None
    ) -> Trajectories:
        group = torch.arange(len(prompts)).repeat_interleave(num_answers)
        ids = torch.tensor([p.ids[0] for p in prompts])[group]
        logp = self.logits.detach().log_softmax(-1)[ids]
        generator = torch.Generator().manual_seed(seed)
        answer = torch.multinomial(logp.exp(), 1, generator=generator)
        return Trajectories.of_answers(
            prompts=tuple(prompts),
            group=group,
            token=answer,
            mask=torch.ones_like(answer, dtype=torch.bool),
            logp=logp.gather(1, answer),
            terminated=torch.ones(len(answer), dtype=torch.bool),
            texts=tuple(str(int(a)) for a in answer),
            sampling=sampling,
            version=self.version,
        )

    def stats(self, batch: Trajectories) -> tuple[Tensor, Tensor]:
        logp = self.logits.log_softmax(-1)[context(batch)]
        return logp.gather(1, batch.token), -(logp.exp() * logp).sum(-1, keepdim=True)

    def logprobs(self, batch: Trajectories) -> Tensor:
        return self.stats(batch)[0].detach()

    def update(self, batch, loss, *, fields=None, denominator, lr: float) -> dict[str, float]:
        self.optimiser.zero_grad()
        logp, entropy = self.stats(batch)
        numbers = backward(loss, batch, fields, denominator, logp=logp, entropy=entropy.detach())
        self.optimiser.param_groups[0]["lr"] = lr
        self.optimiser.step()
        self.version += 1
        return {**numbers, "grad_norm": float(self.logits.grad.norm())}

    def state(self):
        return {"logits": self.logits.detach()}, {}

    def restore(self, saved) -> None:
        with torch.no_grad():
            self.logits.copy_(saved[0]["logits"])


class TableCritic:
    def __init__(self, num_prompts: int, dtype: torch.dtype = torch.float64) -> None:
        self.value = torch.zeros(num_prompts, dtype=dtype, requires_grad=True)
        self.optimiser = torch.optim.Adam([self.value])

    def values(self, batch: Trajectories) -> Tensor:
        return self.value.detach()[context(batch)][:, None]

    def update(self, batch, loss, *, fields=None, denominator, lr: float) -> dict[str, float]:
        self.optimiser.zero_grad()
        value = self.value[context(batch)][:, None]
        numbers = backward(loss, batch, fields, denominator, value=value)
        self.optimiser.param_groups[0]["lr"] = lr
        self.optimiser.step()
        return {**numbers, "grad_norm": float(self.value.grad.norm())}

    def state(self):
        return {"value": self.value.detach()}, {}

    def restore(self, saved) -> None:
        with torch.no_grad():
            self.value.copy_(saved[0]["value"])


class TableReference:
    def __init__(self, logits: Tensor) -> None:
        self.logp = logits.log_softmax(-1)

    def logprobs(self, batch: Trajectories) -> Tensor:
        return self.logp[context(batch)].gather(1, batch.token)


class TableReward:
    def __init__(self, reward: Tensor) -> None:
        self.reward = reward

    def __call__(self, batch: Trajectories) -> Tensor:
        return self.reward[context(batch)].gather(1, batch.token)


def backward(loss, batch, fields, denominator, **statistics: Tensor) -> dict[str, float]:
    """Differentiates a loss of the whole batch; its numbers."""
    part = Part(batch.chosen, batch.logp, float(denominator), statistics, fields or {})
    value, numbers = loss(part)
    value.backward()
    return {name: float(x) for name, x in numbers.items()}


def context(batch: Trajectories) -> Tensor:
    return torch.tensor([batch.prompts[g].ids[0] for g in batch.group.tolist()])
