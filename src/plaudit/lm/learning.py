"""The gradient steps of the critic-free algorithms, and the loss that they share.

    L = Σ w ℓ(ρ, A) / D  +  kl_coef · Σ w ρ k2 / D  −  entropy_coef · Σ w H / D

k2's ρ is held constant: it makes the mean over what π_old drew the gradient of KL(π ‖ π_ref) in every
update, as DeepSeek-V3.2 has it (2512.02556), where k2 alone is right in the first one only.
What a token counts for, w, and the denominator D belong to the optimiser's batch: see `counted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from plaudit.lm.loop import added, minibatches
from plaudit.lm.rollout import RolloutKeys
from plaudit.ops import SURROGATES, aggregate, kl_k2, masked_sum
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.losses import Numbers, Part, cut
from plaudit.records.roles import Actor
from plaudit.records.state import Saved
from plaudit.records.types import Trajectories

Counting = Literal["answer", "tokens", "constant"]


@dataclass(frozen=True)
class Surrogate:
    """L of the chosen tokens. Fields, all [B, T]: `adv`, `weight` (what a token counts for), and
    `logp_ref` where there is a KL."""

    needs: ClassVar[tuple[str, ...]] = ("logp", "entropy")
    together: ClassVar[bool] = False

    loss: str
    keys: SurrogateKeys
    kl_coef: float = 0.0
    entropy_coef: float = 0.0

    def __call__(self, part: Part) -> tuple[Tensor, Numbers]:
        """The loss, and sums over tokens: loss, KL to the old policy, clipping, entropy, ratio."""
        logp, weight = part["logp"], part["weight"]
        ratio = (logp.detach() - part.logp_old).exp()
        each = SURROGATES[self.loss](logp, part.logp_old, part["adv"], part.chosen, self.keys)
        whole = each * weight
        if self.kl_coef:
            whole = whole + self.kl_coef * weight * ratio * kl_k2(logp, part["logp_ref"])
        if self.entropy_coef:
            if torch.is_grad_enabled() and not part["entropy"].requires_grad:
                raise ValueError("this model's entropy carries no gradient: set entropy_coef to 0")
            whole = whole - self.entropy_coef * weight * part["entropy"]
        told = {
            "loss/policy_avg": each,
            "policy/approxkl_avg": kl_k2(logp, part.logp_old),
            "policy/clipfrac_low": (ratio < 1 - self.keys.clip_low).to(ratio.dtype),
            "policy/clipfrac_high": (ratio > 1 + self.keys.clip_high).to(ratio.dtype),
            "policy/entropy_avg": part["entropy"],
            "val/ratio": ratio,
        }
        sums = {name: masked_sum(x.detach(), part.chosen) for name, x in told.items()}
        return aggregate(whole, part.chosen, part.denominator), sums


def counted(how: Counting, batch: Trajectories) -> tuple[Tensor, float]:
    """What each token counts for [B, T], and the denominator, of the optimiser's whole batch.

    answer: its share of its answer, of the answers. tokens: one, of all chosen tokens. constant:
    one, of the answers times the length limit.
    """
    chosen = batch.chosen
    length = chosen.sum(1, keepdim=True)
    one = chosen.to(batch.logp.dtype)
    if how == "answer":
        return one / length.clamp(min=1), float(len(batch))
    if how == "tokens":
        return one, float(length.sum())
    return one, float(len(batch) * batch.sampling.max_new_tokens)


def learn(
    config: RolloutKeys,
    actor: Actor,
    batch: Trajectories,
    loss: Surrogate,
    fields: Mapping[str, Tensor],
    *,
    counting: Counting,
    lr: float,
    key: tuple[int, ...],
) -> dict[str, float]:
    """The gradient steps on one rollout; sums over tokens become means in the metrics.

    `fields` [B, T] go to the loss; one of the name `importance` multiplies what a token counts for.
    Nothing is done with a batch of no rows.
    """
    sums: dict[str, float] = {}
    num_tokens, norms = 0, []
    for epoch in range(config.num_epochs if len(batch) else 0):
        group = batch.group.tolist()
        for rows in minibatches(group, number=config.num_minibatches, key=(*key, epoch)):
            part, own = batch.select(rows), cut(fields, rows)
            weight, denominator = counted(counting, part)
            own["weight"] = weight * own.pop("importance", 1.0)
            told = dict(actor.update(part, loss, fields=own, denominator=denominator, lr=lr))
            norms.append(told.pop("grad_norm"))
            added(sums, told)
            num_tokens += int(part.chosen.sum())
    means = {name: x / num_tokens for name, x in sums.items()}
    if norms:
        means["grad_norm"] = sum(norms) / len(norms)
    return {**means, "policy/num_updates": float(len(norms)), "num_tokens": float(num_tokens)}


@dataclass
class Position:
    """The steps that a loop has finished, and the prompts that it has taken."""

    step: int = 0
    place: int = 0

    def state(self) -> Saved:
        """Both numbers."""
        return {}, {"step": self.step, "place": self.place}

    def restore(self, saved: Saved) -> None:
        """Takes them back."""
        self.step, self.place = int(saved[1]["step"]), int(saved[1]["place"])


@dataclass
class EntropyController:
    """The bonus of a nat of entropy; with a target it grows by `change` a step while the entropy is
    below, and falls to 0 otherwise.

    Source: He et al. 2025 (2505.22312), section 4.2.
    """

    coef: float
    target: float | None
    change: float = 5e-3

    def adapt(self, entropy: float | None) -> None:
        """Takes in the mean entropy of an update; None where there was none."""
        if self.target is not None and entropy is not None:
            change = self.change if entropy < self.target else -self.change
            self.coef = max(0.0, self.coef + change)

    def state(self) -> Saved:
        """The coefficient."""
        return {}, {"coef": self.coef}

    def restore(self, saved: Saved) -> None:
        """Takes it back."""
        self.coef = float(saved[1]["coef"])
