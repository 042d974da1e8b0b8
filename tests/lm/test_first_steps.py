"""The first step of every loop: the gradient that it follows, written out for the answers it drew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles import credit
from oracles import enumerated as e
from oracles import group_formulas as g
from oracles import pair_formulas as pf
from plaudit.lm.best_of_n import BestOfNConfig, best_of_n
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.records.types import Trajectories
from tree_world import (
    TWO_PROMPTS,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    TreeReward,
    some_logits,
    some_rewards,
)

TREE = TWO_PROMPTS
START, REF, REWARD = some_logits(TREE, 0), some_logits(TREE, 5), some_rewards(TREE, 1)
SIZE, NUM = 4, 6
"""Answers to a prompt, prompts in a step: each of the two comes up three times."""


class Remembering(TreeActor):
    """Knows what it drew, and the weights that it drew with."""

    def generate(self, prompts, **how) -> Trajectories:
        self.drawn = super().generate(prompts, **how)
        return self.drawn


def stepped(loop, config, **roles: Any) -> Remembering:
    """One rollout by plain gradient descent with a rate of 1."""
    actor = Remembering(TREE, START, adam=False)
    judge = {} if loop is ppo else {"judge": TreeJudge(TREE, {"score": REWARD})}
    reference = {} if loop is best_of_n else {"reference": TreeReference(TREE, REF)}
    events = loop(
        config,
        actor=actor,
        prompts=list(TREE.prompts),
        sampling=TREE.sampling,
        seed=0,
        **judge,
        **reference,
        **roles,
    )
    for _ in events:
        pass
    return actor


class Drawn:
    """A rollout by the oracles: rows of tokens, groups of scores."""

    def __init__(self, batch: Trajectories) -> None:
        number = TREE.numbers(batch).tolist()
        self.group = batch.group.tolist()
        assert self.group == [g for g in range(NUM) for _ in range(SIZE)]
        self.every = [TREE.every[n] for n in number]
        self.score = torch.cat(REWARD)[number].tolist()
        self.logp = self.rows(START)
        self.ref = self.rows(REF)
        self.kl = [float((x - y).sum()) for x, y in zip(self.logp, self.ref, strict=True)]

    def rows(self, logits: Tensor) -> list[Tensor]:
        tokens = e.token_logps(TREE, logits)
        return [tokens[p][TREE.answers[p].index(a)] for p, a in self.every]

    def groups(self, score: list[float]) -> list[list[float]]:
        return [score[i : i + SIZE] for i in range(0, len(score), SIZE)]


def moved(actor: Remembering, loss: Callable[[Tensor], Tensor]) -> None:
    """The actor went down the loss's gradient, from where it began."""
    wanted = START - e.slope(TREE, loss, START)
    assert float((wanted - START).abs().max()) > 1e-3
    torch.testing.assert_close(actor.logits.detach(), wanted, rtol=0, atol=1e-10)


def reinforce(
    drawn: Drawn,
    adv: list[list[float]],
    mean: Callable[[list[Tensor]], Tensor],
    *,
    kl_coef: float = 0.0,
) -> Callable[[Tensor], Tensor]:
    """−A log π of every token, and k2, reduced by `mean`."""
    flat = [a for group in adv for a in group]

    def loss(z: Tensor) -> Tensor:
        each = [
            -a * x + kl_coef * g.k2(x, y)
            for a, x, y in zip(flat, drawn.rows(z), drawn.ref, strict=True)
        ]
        return mean(each)

    return loss


SHAPE = {"num_steps": 1, "prompts_per_step": NUM, "answers_per_prompt": SIZE, "lr": 1.0}
CONSTANT = lambda rows: g.over_constant(rows, longest=3)  # noqa: E731


@pytest.mark.parametrize("loss", ["clip", "cispo", "sapo"])
@pytest.mark.parametrize(
    ("keys", "mean"),
    [
        ({"denominator": "answer"}, g.mean_of_answers),
        ({"denominator": "tokens"}, g.mean_of_tokens),
        ({"denominator": "constant", "scale": "none"}, CONSTANT),
        ({"denominator": "tokens", "scale": "batch", "ddof": 0}, g.mean_of_tokens),
    ],
)
@pytest.mark.parametrize("kl_in", ["none", "loss", "reward"])
def test_grpo(loss: str, keys: dict, mean, kl_in: str) -> None:
    kl_coef = 0.0 if kl_in == "none" else 0.3
    where = {} if kl_in == "none" else {"kl_in": kl_in}
    actor = stepped(grpo, GRPOConfig(loss=loss, kl_coef=kl_coef, **where, **keys, **SHAPE))
    drawn = Drawn(actor.drawn)
    score = drawn.score
    if kl_in == "reward":
        score = [r - kl_coef * k for r, k in zip(score, drawn.kl, strict=True)]
    groups, ddof = drawn.groups(score), keys.get("ddof", 1)
    adv = {
        "group": lambda: g.grpo(groups, ddof=ddof, eps=1e-4),
        "none": lambda: g.dr_grpo(groups),
        "batch": lambda: g.batch_scaled(groups, ddof=ddof, eps=1e-4),
    }[keys.get("scale", "group")]()
    moved(actor, reinforce(drawn, adv, mean, kl_coef=kl_coef if kl_in == "loss" else 0.0))


@pytest.mark.parametrize("loss", ["gspo", "gmpo"])
def test_grpo_with_ratios_of_answers(loss: str) -> None:
    actor = stepped(grpo, GRPOConfig(loss=loss, denominator="answer", **SHAPE))
    drawn = Drawn(actor.drawn)
    adv = g.grpo(drawn.groups(drawn.score), ddof=1, eps=1e-4)
    moved(actor, reinforce(drawn, adv, g.mean_of_answers))


def test_rloo() -> None:
    """Sums over tokens: an answer is one action, however long."""
    actor = stepped(rloo, RLOOConfig(kl_coef=0.3, **SHAPE))
    drawn = Drawn(actor.drawn)
    score = [r - 0.3 * k for r, k in zip(drawn.score, drawn.kl, strict=True)]
    adv = g.rloo(drawn.groups(score))
    moved(actor, reinforce(drawn, adv, lambda rows: sum(row.sum() for row in rows) / len(rows)))


def test_grpo_goes_on_from_where_the_first_update_led() -> None:
    """Three epochs: the later two are off policy, their ratios and distances of the moved weights."""
    keys = {**SHAPE, "num_epochs": 3, "lr": 4.0, "kl_coef": 0.3, "clip_high": 0.3}
    actor = stepped(grpo, GRPOConfig(**keys))
    drawn = Drawn(actor.drawn)
    adv = [a for r in g.grpo(drawn.groups(drawn.score), ddof=1, eps=1e-4) for a in r]

    def loss(z: Tensor) -> Tensor:
        each = []
        for a, x, old, ref in zip(adv, drawn.rows(z), drawn.logp, drawn.ref, strict=True):
            ratio = torch.exp(x.detach() - old)
            each.append(g.clip(x, old, a, low=0.2, high=0.3) + 0.3 * ratio * g.k2(x, ref))
        return g.mean_of_tokens(each)

    z = START
    for _ in range(3):
        z = z - 4.0 * e.slope(TREE, loss, z)
    ratio = torch.cat([(x - y).exp() for x, y in zip(drawn.rows(z), drawn.logp, strict=True)])
    assert float(ratio.max()) > 1.3
    torch.testing.assert_close(actor.logits.detach(), z, rtol=0, atol=1e-10)


@pytest.mark.parametrize("baseline", ["none", "group"])
def test_reinforce_pp(baseline: str) -> None:
    actor = stepped(reinforce_pp, ReinforcePPConfig(baseline=baseline, kl_coef=0.3, **SHAPE))
    drawn = Drawn(actor.drawn)
    kl = [(x - y).tolist() for x, y in zip(drawn.logp, drawn.ref, strict=True)]
    if baseline == "none":
        adv = g.whitened_returns(drawn.score, kl, beta=0.3)
    else:
        score = [a for r in g.dr_grpo(drawn.groups(drawn.score)) for a in r]
        adv = g.whitened_returns(score, kl, beta=0.0)

    def loss(z: Tensor) -> Tensor:
        each = []
        for a, x, ref in zip(adv, drawn.rows(z), drawn.ref, strict=True):
            row = -torch.tensor(a, dtype=torch.float64) * x
            each.append(row + 0.3 * g.k2(x, ref) if baseline == "group" else row)
        return g.mean_of_tokens(each)

    wanted = START - e.slope(TREE, loss, START)
    torch.testing.assert_close(actor.logits.detach(), wanted, rtol=0, atol=1e-7)  # whitening's 1e-8


@pytest.mark.parametrize("policy_lam", [None, 0.5])
def test_ppo(policy_lam: float | None) -> None:
    """With a critic of zeros, whose targets are the returns at its own λ."""
    critic = TreeCritic(TREE, adam=False)
    config = PPOConfig(
        num_minibatches=1, kl_coef=0.3, kl_target=None, critic_lr=1.0, lam=0.9,
        policy_lam=policy_lam, value_clip=100.0, **SHAPE,
    )  # fmt: skip
    actor = stepped(ppo, config, critic=critic, reward=TreeReward(TREE, REWARD))
    drawn = Drawn(actor.drawn)
    mask = actor.drawn.chosen.numpy()
    reward = torch.zeros(mask.shape, dtype=torch.float64)
    for i, (x, ref) in enumerate(zip(drawn.logp, drawn.ref, strict=True)):
        reward[i, : len(x)] = -0.3 * (x - ref)
        reward[i, len(x) - 1] += drawn.score[i]
    zero = torch.zeros_like(reward).numpy()
    last = torch.tensor([[t == len(x) - 1 for t in range(mask.shape[1])] for x in drawn.logp])
    adv, own = (
        credit.gae(reward.numpy(), zero, zero, last.numpy(), last.numpy(), 1.0, lam, mask)
        for lam in (policy_lam or 0.9, 0.9)
    )
    lengths = [len(x) for x in drawn.logp]
    white = g.whitened([row[:n].tolist() for row, n in zip(adv, lengths, strict=True)])

    def loss(z: Tensor) -> Tensor:
        each = zip(white, drawn.rows(z), strict=True)
        return g.mean_of_tokens([-torch.tensor(a, dtype=torch.float64) * x for a, x in each])

    wanted = START - e.slope(TREE, loss, START)
    torch.testing.assert_close(actor.logits.detach(), wanted, rtol=0, atol=1e-7)
    # ½(V − R)² from 0: each node's value moves to the sum of its targets over all tokens
    value = torch.zeros(len(TREE.nodes), dtype=torch.float64)
    for i, (p, answer) in enumerate(drawn.every):
        for t in range(len(answer)):
            value[TREE.nodes[p, answer[:t]]] += float(own[i, t]) / sum(lengths)
    torch.testing.assert_close(critic.value.detach(), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge"])
def test_online_dpo(name: str) -> None:
    actor = stepped(online_dpo, OnlineDPOConfig(loss=name, beta=0.4, **SHAPE))
    drawn = Drawn(actor.drawn)
    won, lost = [], []
    for k, scores in enumerate(drawn.groups(drawn.score)):
        if max(scores) > min(scores):
            won.append(SIZE * k + scores.index(max(scores)))
            lost.append(SIZE * k + scores.index(min(scores)))

    def loss(z: Tensor) -> Tensor:
        rows = drawn.rows(z)
        sides = [
            pf.Side(
                torch.stack([rows[i].sum() for i in some]),
                torch.stack([drawn.ref[i].sum() for i in some]),
                torch.tensor([float(len(rows[i])) for i in some]),
            )
            for some in (won, lost)
        ]
        return pf.formula(name, *sides, beta=0.4).mean()

    assert 1 < len(won) <= NUM
    moved(actor, loss)


def test_best_of_n() -> None:
    actor = stepped(best_of_n, BestOfNConfig(**SHAPE))
    drawn = Drawn(actor.drawn)
    best = [
        SIZE * k + scores.index(max(scores))
        for k, scores in enumerate(drawn.groups(drawn.score))
        if max(scores) > min(scores)
    ]
    moved(actor, lambda z: g.mean_of_tokens([-drawn.rows(z)[i] for i in best]))
