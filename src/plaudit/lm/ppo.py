"""PPO with four roles: teach a language model by a score for whole answers, near a reference.

One step: draw answers, score them, penalise every token's distance from the reference, assign
credit with a critic, and take a few clipped gradient steps on the same answers.

    r_t  = −β (log π_old − log π_ref)_t  (+ score on the last real token)
    A_t  = Σ (γλ)^k δ_{t+k}, whitened over all real tokens;   R_t = A_t + V_t
    L_π  = mean over tokens of −min(ρA, clip(ρ, 1±ε) A),      ρ = π/π_old
    L_V  = mean over tokens of ½ max((V−R)², (clip(V, V_old±ε_v)−R)²)

Sources: Schulman et al. 2017 (1707.06347); Ziegler et al. 2019 (1909.08593); Ouyang et al. 2022
(2203.02155); Huang et al. 2024, "The N+ implementation details" (2403.17031).

Departures: actor and critic have an optimiser each, so their losses need no relative weight; the
log-probabilities of the old policy are those the sampler drew with, not those of a second pass.
Left out: an entropy bonus, and bootstrapping the value of answers cut by the length limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from plaudit.lm.steps import credit, token_steps
from plaudit.ops import aggregate, clipped_surrogate, clipped_value_loss, kl_k2, masked_whiten
from plaudit.records.config import Config
from plaudit.records.events import Checkpoint, Done, Event, Rollout, Step
from plaudit.records.roles import Actor, Critic, Reference, Reward
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


class PPOConfig(Config):
    """Settings of PPO on text. A token's reward and a score are in the reward model's units."""

    num_steps: int = Field(12, ge=1, description="Rollouts, each followed by updates.")
    prompts_per_step: int = Field(16, ge=1, description="Prompts drawn for a rollout.")
    answers_per_prompt: int = Field(
        4, ge=1, description="Answers to each prompt; they share the prompt's computation."
    )
    num_epochs: int = Field(
        2, ge=1, description="Passes over a rollout (Huang et al. 2024 use 4 with smaller steps)."
    )
    num_minibatches: int = Field(
        2, ge=1, description="Optimiser steps in an epoch; prompts are not split across them."
    )
    lr: float = Field(1.5e-4, gt=0, description="The actor's first learning rate; falls to 0.")
    critic_lr: float = Field(
        1e-4, gt=0, description="The critic's first learning rate; falls to 0."
    )
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token (Ziegler et al. 2019).")
    lam: float = Field(0.95, ge=0, le=1, description="GAE's decay (Ziegler et al. 2019).")
    clip: float = Field(0.2, gt=0, description="Range of the ratio (Schulman et al. 2017).")
    value_clip: float = Field(
        0.2, gt=0, description="How far a value may move in one rollout (Huang et al. 2024)."
    )
    kl_coef: float = Field(
        0.15, ge=0, description="First β: the score one nat of distance from the reference costs."
    )
    kl_target: float | None = Field(
        4.5,
        gt=0,
        description="Nats per answer that β is steered to; none keeps β fixed (Ziegler et al.).",
    )
    kl_horizon: int = Field(
        300,
        ge=1,
        description="Answers over which β may change by a fifth (Ziegler et al.: 10,000).",
    )
    score_scaling: Literal["none", "running_std"] = Field(
        "none",
        description="Divide scores by their running standard deviation, or leave them.",
    )
    missing_eos_penalty: float = Field(
        0.5,
        ge=0,
        description="Taken from the scaled score of an answer that the length limit cut.",
    )
    max_policy_kl: float = Field(
        0.1,
        gt=0,
        description="Nats per token between old and new policy at which a rollout's updates stop.",
    )
    save_every: int = Field(5, ge=1, description="Steps between checkpoints.")


@dataclass
class RunningMoments:
    """Count, mean and sum of squared deviations of all scores seen (Welford 1962; Chan 1979)."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, x: Sequence[float]) -> None:
        n = len(x)
        mean = math.fsum(x) / n
        m2 = math.fsum((v - mean) ** 2 for v in x)
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * n / total
        self.m2 += m2 + delta**2 * self.count * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation; 1 while the scores seen do not differ."""
        spread = math.sqrt(self.m2 / self.count) if self.count else 0.0
        return spread if spread > 1e-8 * max(1.0, abs(self.mean)) else 1.0


def adapted_kl_coef(
    kl_coef: float, kl: float, *, target: float, num_answers: int, horizon: int
) -> float:
    """β·(1 + clip(KL/target − 1, ±0.2)·n/horizon): the proportional controller.

    Source: Ziegler et al. 2019, section 2.2. Raises nothing: a negative estimate of the KL counts
    as the largest fall.
    """
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return kl_coef * (1.0 + error * num_answers / horizon)


def prompt_batch(num_prompts: int, *, step: int, size: int, seed: int) -> list[int]:
    """The prompts of a step: every prompt once an epoch, in an order that depends on the seed.

    A function of the step alone, so a resumed run needs no position to be kept.
    """
    chosen: list[int] = []
    place = step * size
    while len(chosen) < size:
        epoch, offset = divmod(place + len(chosen), num_prompts)
        order = np.random.default_rng((seed, 1, epoch)).permutation(num_prompts)
        chosen += order[offset : offset + size - len(chosen)].tolist()
    return chosen


def minibatches(
    num_prompts: int, answers_per_prompt: int, *, number: int, key: tuple[int, ...]
) -> list[list[int]]:
    """Rows of each minibatch: prompts shuffled and dealt, answers to one prompt kept together."""
    order = np.random.default_rng(key).permutation(num_prompts)
    parts = [part for part in np.array_split(order, number) if len(part)]
    return [
        [int(g) * answers_per_prompt + k for g in part for k in range(answers_per_prompt)]
        for part in parts
    ]


def ppo(
    config: PPOConfig,
    *,
    actor: Actor,
    critic: Critic,
    reference: Reference,
    reward: Reward,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    gold: Reward | None = None,
    saved: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> Iterator[Event]:
    """Improve `actor` on `prompts`; `saved` is a checkpoint's state to continue from.

    `sampling` says how answers are drawn, and so which distribution every log-probability, ratio
    and KL is of. `seed` decides prompts, draws and minibatches. `gold` is a second judge whose mean is logged and
    never trained on: where it falls while the reward rises, the reward is being exploited.

    Yields, for each step, a `Rollout`, a `Step` and a `Checkpoint`; at the end `Done`.
    """
    kl_coef, moments, start = config.kl_coef, RunningMoments(), 0
    if saved is not None:
        start, kl_coef, moments = _restore(saved, actor, critic)
    for step in range(start, config.num_steps):
        chosen = prompt_batch(len(prompts), step=step, size=config.prompts_per_step, seed=seed)
        batch = actor.generate(
            [prompts[i] for i in chosen],
            num_answers=config.answers_per_prompt,
            sampling=sampling,
            seed=int(np.random.SeedSequence((seed, 2, step)).generate_state(1)[0]),
        )
        score = reward(batch)
        logp_ref = reference.logprobs(batch)
        value = critic.values(batch)

        moments.add(score.tolist())
        scale = moments.std if config.score_scaling == "running_std" else 1.0
        judged = score / scale - config.missing_eos_penalty * (~batch.terminated)
        steps = token_steps(batch, value=value, score=judged, logp_ref=logp_ref, kl_coef=kl_coef)
        adv, ret = credit(steps, gamma=config.gamma, lam=config.lam)
        adv = masked_whiten(adv, batch.mask)

        fraction = 1.0 - step / config.num_steps
        update = _update(config, actor, critic, batch, adv, ret, value, step, fraction, seed)
        kl = float(((batch.logp - logp_ref) * batch.mask).sum() / len(batch))
        metrics = {
            **_rollout_metrics(batch, score, judged, kl, kl_coef),
            **update,
            **({} if gold is None else {"gold/mean": float(gold(batch).mean())}),
            "val/explained_variance": _explained_variance(value, ret, batch.mask),
            "lr": config.lr * fraction,
        }
        if config.kl_target is not None:
            kl_coef = adapted_kl_coef(
                kl_coef,
                kl,
                target=config.kl_target,
                num_answers=len(batch),
                horizon=config.kl_horizon,
            )
        yield Rollout(step + 1, _samples(batch, score, logp_ref), {})
        yield Step(step + 1, config.num_steps, metrics)
        due = (step + 1) % config.save_every == 0 or step + 1 == config.num_steps
        yield _checkpoint(step + 1, due, actor, critic, kl_coef, moments)
    yield Done(config.num_steps, {"kl_coef": kl_coef})


def _update(
    config: PPOConfig,
    actor: Actor,
    critic: Critic,
    batch: Trajectories,
    adv: Tensor,
    ret: Tensor,
    value_old: Tensor,
    step: int,
    fraction: float,
    seed: int,
) -> dict[str, float]:
    """The gradient steps on one rollout; sums over tokens become means in the metrics."""
    totals: dict[str, float] = {}
    num_tokens, num_updates, stopped = 0, 0, False

    def note(name: str, x: Tensor, mask: Tensor) -> None:
        totals[name] = totals.get(name, 0.0) + float((x.detach() * mask).sum())

    for epoch in range(config.num_epochs):
        parts = minibatches(
            config.prompts_per_step,
            config.answers_per_prompt,
            number=config.num_minibatches,
            key=(seed, 3, step, epoch),
        )
        for rows in parts:
            if stopped:
                break
            part = batch.select(rows)
            denominator = part.mask.sum()
            adv_part, ret_part, value_part = adv[rows], ret[rows], value_old[rows]
            before = totals.get("policy/approxkl_avg", 0.0)

            def policy_loss(
                index: list[int],
                logp: Tensor,
                entropy: Tensor,
                part: Trajectories = part,
                adv_part: Tensor = adv_part,
                denominator: Tensor = denominator,
            ) -> Tensor:
                mask, logp_old, a = part.mask[index], part.logp[index], adv_part[index]
                loss = clipped_surrogate(
                    logp, logp_old, a, clip_low=config.clip, clip_high=config.clip
                )
                ratio = (logp.detach() - logp_old).exp()
                note("loss/policy_avg", loss, mask)
                note("policy/approxkl_avg", kl_k2(logp.detach(), logp_old), mask)
                note("policy/clipfrac_avg", ((ratio - 1).abs() > config.clip).float(), mask)
                note("policy/entropy_avg", entropy, mask)
                note("val/ratio", ratio, mask)
                return aggregate(loss, mask, denominator)

            def value_loss(
                index: list[int],
                value: Tensor,
                part: Trajectories = part,
                ret_part: Tensor = ret_part,
                value_part: Tensor = value_part,
                denominator: Tensor = denominator,
            ) -> Tensor:
                mask, old = part.mask[index], value_part[index]
                loss = clipped_value_loss(value, old, ret_part[index], clip=config.value_clip)
                note("loss/value_avg", loss, mask)
                moved = ((value.detach() - old).abs() > config.value_clip).float()
                note("val/clipfrac_avg", moved, mask)
                return aggregate(loss, mask, denominator)

            of_actor = actor.update(part, policy_loss, lr=config.lr * fraction)
            of_critic = critic.update(part, value_loss, lr=config.critic_lr * fraction)
            num_tokens += int(denominator)
            num_updates += 1
            totals["grad_norm"] = totals.get("grad_norm", 0.0) + of_actor["grad_norm"]
            totals["grad_norm/critic"] = (
                totals.get("grad_norm/critic", 0.0) + of_critic["grad_norm"]
            )
            moved = (totals["policy/approxkl_avg"] - before) / float(denominator)
            stopped = moved > config.max_policy_kl
    norms = {"grad_norm", "grad_norm/critic"}
    means = {k: v / (num_updates if k in norms else num_tokens) for k, v in totals.items()}
    return {**means, "policy/num_updates": float(num_updates)}


def _rollout_metrics(
    batch: Trajectories, score: Tensor, judged: Tensor, kl: float, kl_coef: float
) -> dict[str, float]:
    """What the rollout itself says, before any update."""
    return {
        "objective/scores": float(score.mean()),
        "objective/kl": kl,
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": float(judged.mean()) - kl_coef * kl,
        "answer/length": float(batch.mask.sum() / len(batch)),
        "answer/finished": float(batch.terminated.float().mean()),
        "kl_coef": kl_coef,
    }


def _explained_variance(value: Tensor, ret: Tensor, mask: Tensor) -> float:
    """1 − Var(R − V)/Var(R) over real tokens; 0 when the returns do not vary."""
    r = ret[mask].double()
    var = float(r.var(unbiased=False))
    if var == 0.0:
        return 0.0
    return 1.0 - float((r - value[mask].double()).var(unbiased=False)) / var


def _samples(batch: Trajectories, score: Tensor, logp_ref: Tensor) -> list[dict[str, Any]]:
    """Four of the rollout's answers for people to read."""
    kl = ((batch.logp - logp_ref) * batch.mask).sum(1)
    stride = max(len(batch) // 4, 1)
    return [
        {
            "prompt": batch.prompts[int(batch.group[row])].text,
            "completion": batch.texts[row],
            "score": float(score[row]),
            "kl": float(kl[row]),
        }
        for row in range(0, len(batch), stride)
    ][:4]


def _checkpoint(
    step: int, due: bool, actor: Actor, critic: Critic, kl_coef: float, moments: RunningMoments
) -> Checkpoint:
    def state() -> tuple[dict[str, Any], dict[str, Any]]:
        of_actor, actor_facts = actor.state()
        of_critic, critic_facts = critic.state()
        arrays = {f"actor.{k}": v for k, v in of_actor.items()}
        arrays |= {f"critic.{k}": v for k, v in of_critic.items()}
        facts = {
            "step": step,
            "kl_coef": kl_coef,
            "moments": asdict(moments),
            "actor": actor_facts,
            "critic": critic_facts,
        }
        return arrays, facts

    return Checkpoint(step, state, due)


def _restore(
    saved: tuple[Mapping[str, Any], Mapping[str, Any]], actor: Actor, critic: Critic
) -> tuple[int, float, RunningMoments]:
    arrays, facts = saved
    for name, role in (("actor", actor), ("critic", critic)):
        start = f"{name}."
        own = {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}
        role.restore(own, facts[name])
    return int(facts["step"]), float(facts["kl_coef"]), RunningMoments(**facts["moments"])


__all__ = ["PPOConfig", "RunningMoments", "adapted_kl_coef", "ppo", "prompt_batch"]
