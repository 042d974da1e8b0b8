"""What must not change a gradient or a number: cuts, order, padding, rows that do not count, copies.

Each case makes a loss, its fields and denominator from a batch as its loop does, so that whatever
belongs to the optimiser's whole batch is computed anew from the changed batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from plaudit.lm.dpo import DPOConfig
from plaudit.lm.grpo import GRPOConfig
from plaudit.lm.grpo import advantages as grpo_advantages
from plaudit.lm.kto import KTOConfig, label_loss
from plaudit.lm.learning import Surrogate, counted
from plaudit.lm.loop import CrossEntropy, RunningMoments
from plaudit.lm.pairs import pair_loss
from plaudit.lm.ppo import ClippedPolicy, ClippedValue
from plaudit.lm.reinforce_pp import advantages as token_advantages
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows, scored
from plaudit.ops import PAIR_LOSSES, SURROGATES, leave_one_out_advantage, outcome_reward
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.pairs import Pairs
from plaudit.records.types import Trajectories
from tree_world import (
    Tree,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    level_of,
    some_logits,
    some_rewards,
)

TREE = Tree([[(0,), (1, 0), (1, 2), (2, 1, 1), (2, 1, 0)]] * 3, 3)
"""Answers that may stand behind another prompt, as KTO's level needs."""

OLD, NOW, REF = (some_logits(TREE, seed) for seed in (0, 3, 5))
REWARD, OTHER = some_rewards(TREE, 1), some_rewards(TREE, 2)
KEYS = SurrogateKeys(clip_low=0.2, clip_high=0.3, cap=1.5)


@dataclass(frozen=True)
class Asked:
    """What a loop gives to `update`."""

    batch: Trajectories
    loss: Any
    fields: Mapping[str, Any]
    denominator: float


Make = Callable[[Trajectories], Asked]


def answers() -> Trajectories:
    """Four answers to each of three prompts, drawn from the old policy."""
    return TREE.draw(OLD, TREE.prompts, 4, seed=2)


def judged(batch: Trajectories) -> Drawn:
    judge = TreeJudge(TREE, {"a": REWARD, "b": OTHER}, (1.0, 0.5))
    return scored(RolloutKeys(answers_per_prompt=4), batch, judge, taken=3)


def reference(batch: Trajectories) -> Tensor:
    return TreeReference(TREE, REF).logprobs(batch)


def of_surrogate(name: str, counting: str, **how: float) -> Make:
    def make(batch: Trajectories) -> Asked:
        drawn = judged(batch)
        adv = grpo_advantages(GRPOConfig(), drawn, (1.0, 0.5))
        rows = learned_rows(GRPOConfig(), drawn)
        some = batch.select(rows)
        weight, denominator = counted(counting, some)  # type: ignore[arg-type]
        fields = {"adv": adv[rows][:, None] * some.chosen, "weight": weight}
        fields["logp_ref"] = reference(some)
        return Asked(some, Surrogate(name, KEYS, **how), fields, denominator)

    return make


def of_advantages(kind: str) -> Make:
    """The clipped loss with each method's own advantages."""

    def make(batch: Trajectories) -> Asked:
        drawn = judged(batch)
        if kind == "reinforce_pp":
            reward = outcome_reward(drawn.score, batch.chosen)
            adv = token_advantages(reward - 0.3 * (batch.logp - reference(batch)), batch)
        elif kind == "rloo":
            spread = drawn.groups.spread(drawn.score, drawn.heard)
            each = drawn.groups.back(leave_one_out_advantage(*spread))
            adv = each[:, None] * batch.chosen
        else:
            config = GRPOConfig(**{"apart": {"combine": "apart"}}.get(kind, {"scale": kind}))
            adv = grpo_advantages(config, drawn, (1.0, 0.5))[:, None] * batch.chosen
        weight, denominator = counted("tokens", batch)
        fields = {"adv": adv, "weight": weight}
        return Asked(batch, Surrogate("clip", KEYS), fields, denominator)

    return make


def of_pairs(name: str, **more: float) -> Make:
    """Every pair of a prompt's answers, the better one winning 0.8 of the votes."""
    config = DPOConfig(loss=name, beta=0.4, smoothing=0.1, gamma=0.3, tau=0.5, **more)  # type: ignore[arg-type]

    def make(batch: Trajectories) -> Asked:
        score = judged(batch).score.tolist()
        group = batch.group.tolist()
        pairs = [
            (i, j) for i, j in itertools.combinations(range(len(batch)), 2) if group[i] == group[j]
        ]
        won = [(i, j) if score[i] > score[j] else (j, i) for i, j in pairs]
        made = Pairs(tuple(i for i, _ in won), tuple(j for _, j in won), (0.8,) * len(won))
        ref = reference(batch).sum(1)
        actor = TreeActor(TREE, NOW)
        loss = pair_loss(
            config.loss, config.coefficients, actor, batch, made, ref, RunningMoments(),
            nll_coef=config.nll_coef,
        )  # fmt: skip
        return Asked(batch, loss, {"pairs": made, "ref": ref}, len(made))

    return make


def of_labels(name: str) -> Make:
    config = KTOConfig(loss=name, beta=0.4, bad_weight=1.5)  # type: ignore[arg-type]

    def make(batch: Trajectories) -> Asked:
        good, ref = judged(batch).score > 0, reference(batch).sum(1)
        actor = TreeActor(TREE, NOW)
        level = level_of(0.4, actor, TreeReference(TREE, REF), batch)
        return Asked(batch, label_loss(config, level), {"is_good": good, "ref": ref}, len(batch))

    return make


def of_tokens(loss: Any) -> Make:
    """PPO's two losses and the likelihood, whose fields are given for each token."""

    def make(batch: Trajectories) -> Asked:
        noise = torch.sin(7.0 * TREE.numbers(batch)[:, None] + torch.arange(batch.token.shape[1]))
        some = noise.double() * batch.chosen
        fields = {"adv": some, "ret": 2 * some, "value_old": 0.3 * some}
        return Asked(batch, loss, fields, int(batch.chosen.sum()))

    return make


SURROGATE_CASES = {
    f"{name}/{counting}": of_surrogate(name, counting, kl_coef=0.3, entropy_coef=0.1)
    for name in SURROGATES
    for counting in ("answer", "tokens", "constant")
}
ADVANTAGE_CASES = {
    name: of_advantages(name)
    for name in ("group", "batch", "none", "apart", "rloo", "reinforce_pp")
}
PAIR_CASES = {name: of_pairs(name) for name in PAIR_LOSSES}
PAIR_CASES["dpo and likelihood"] = of_pairs("dpo", nll_coef=0.7)
LABEL_CASES = {f"labels/{name}": of_labels(name) for name in ("kto", "bco")}
TOKEN_CASES = {
    "ppo policy": of_tokens(ClippedPolicy(0.2)),
    "ppo value": of_tokens(ClippedValue(0.2)),
    "likelihood": of_tokens(CrossEntropy()),
}
CASES = {**SURROGATE_CASES, **ADVANTAGE_CASES, **PAIR_CASES, **LABEL_CASES, **TOKEN_CASES}


def followed(asked: Asked, micro: Any = None) -> tuple[Tensor, dict[str, float]]:
    """The gradient that a step follows, and the sums it tells of."""
    role: Any
    if isinstance(asked.loss, ClippedValue):
        role = TreeCritic(TREE, micro=micro)
        with torch.no_grad():
            role.value += torch.linspace(-1, 1, len(TREE.nodes), dtype=torch.float64)
    else:
        role = TreeActor(TREE, NOW, micro=micro)
    fields = dict(asked.fields)
    told = role.gradient(asked.batch, asked.loss, fields=fields, denominator=asked.denominator)
    assert role.table.grad is not None
    assert float(role.table.grad.abs().max()) > 1e-4
    return role.table.grad, told


def same(found: tuple[Tensor, Mapping[str, float]], wanted: tuple[Tensor, Mapping[str, float]],
         *, times: float = 1.0) -> None:  # fmt: skip
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=1e-13)
    for name, value in wanted[1].items():
        assert found[1][name] == pytest.approx(times * value, rel=1e-10, abs=1e-12), name


@pytest.mark.parametrize("micro", [1, 3, (2, 1)])
@pytest.mark.parametrize("name", CASES)
def test_a_cut_into_parts(name: str, micro: Any) -> None:
    asked = CASES[name](answers())
    same(followed(asked, micro), followed(asked))


@pytest.mark.parametrize("name", [n for n in CASES if n not in LABEL_CASES])
def test_the_order_of_rows(name: str) -> None:
    """But for labels, whose level is of each answer behind the prompt of the row that comes next."""
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    same(followed(CASES[name](answers().select(order))), followed(CASES[name](answers())))


@pytest.mark.parametrize("name", CASES)
def test_padding(name: str) -> None:
    """Of tokens that mean something and log-probabilities that are not numbers."""
    batch, shape = answers(), (12, 5)
    wide = {
        "token": torch.cat([batch.token, torch.ones(shape, dtype=torch.int64)], 1),
        "logp": torch.cat([batch.logp, torch.full(shape, torch.nan, dtype=torch.float64)], 1),
    }
    none = torch.zeros(shape, dtype=torch.bool)
    wide |= {n: torch.cat([getattr(batch, n), none], 1) for n in ("there", "chosen")}
    same(followed(CASES[name](replace(batch, **wide))), followed(CASES[name](batch)))


@pytest.mark.parametrize("name", [n for n in CASES if n != "batch"])
def test_every_row_twice(name: str) -> None:
    """Losses are means: copies of all groups change no gradient, and double every sum; but for the
    batch's sample std, whose n − 1 is of the answers."""
    twice = answers().select([*range(12), *range(12)])
    twice = replace(
        twice, group=twice.group + 3 * (torch.arange(24) >= 12), prompts=twice.prompts * 2
    )
    times = 1.0 if name == "likelihood" else 2.0  # the only number that is the mean itself
    same(followed(CASES[name](twice)), followed(CASES[name](answers())), times=times)


@pytest.mark.parametrize("name", SURROGATE_CASES)
@pytest.mark.parametrize("why", ["nobody judged it", "it is empty", "it was cut"])
def test_a_row_that_does_not_count(name: str, why: str) -> None:
    """Beside the twelve stands a thirteenth answer: it is in no loss, mean or denominator."""
    kind, counting = name.split("/")
    batch = answers()
    more = batch.select([*range(12), 0])
    adv = grpo_advantages(GRPOConfig(), judged(batch), (1.0, 0.5))
    keys = RolloutKeys(truncated="mask")
    drawn = judged(more)
    at_last = torch.arange(13) == 12
    if why == "nobody judged it":
        drawn = replace(drawn, heard=~at_last)
    elif why == "it is empty":
        drawn = replace(drawn, batch=replace(more, chosen=more.chosen & ~at_last[:, None]))
    else:
        drawn = replace(drawn, batch=replace(more, truncated=at_last, terminated=~at_last))
    rows = learned_rows(keys, drawn)
    assert rows == list(range(12))
    some = drawn.batch.select(rows)
    weight, denominator = counted(counting, some)  # type: ignore[arg-type]
    fields = {"adv": adv[:, None] * some.chosen, "weight": weight, "logp_ref": reference(some)}
    loss = Surrogate(kind, KEYS, kl_coef=0.3, entropy_coef=0.1)
    same(followed(Asked(some, loss, fields, denominator)), followed(CASES[name](batch)))


def test_an_answer_that_nobody_judged_is_in_no_groups_mean() -> None:
    table = [r.clone() for r in REWARD]
    table[0][2] = torch.nan
    batch = TREE.draw(OLD, TREE.prompts, 12, seed=2)
    judge = TreeJudge(TREE, {"a": table})
    drawn = scored(RolloutKeys(), batch, judge, taken=3)
    assert 0 < int((~drawn.heard).sum()) < 12
    kept = drawn.heard.nonzero()[:, 0].tolist()
    without = scored(RolloutKeys(), batch.select(kept), judge, taken=3)
    for scale in ("group", "batch", "none"):
        config = GRPOConfig(scale=scale)  # type: ignore[arg-type]
        whole, part = (grpo_advantages(config, d, (1.0,)) for d in (drawn, without))
        torch.testing.assert_close(whole[kept], part, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", PAIR_CASES)
def test_an_empty_answer_of_a_pair_is_a_number(name: str) -> None:
    """Its log-probability is 0: nothing was left to chance."""
    batch = answers()
    asked = CASES[name](batch)
    gone = replace(batch, chosen=batch.chosen & (torch.arange(12) != 4)[:, None])
    fields = {**asked.fields, "ref": (reference(gone) * gone.chosen).sum(1)}
    actor = TreeActor(TREE, NOW)
    told = actor.gradient(gone, asked.loss, fields=fields, denominator=asked.denominator)
    assert bool(actor.logits.grad.isfinite().all())
    assert all(map(torch.isfinite, map(torch.tensor, told.values())))


@pytest.mark.parametrize("name", [*LABEL_CASES, *TOKEN_CASES])
def test_an_empty_answer_is_a_number(name: str) -> None:
    batch = answers()
    asked = CASES[name](batch)
    gone = replace(batch, chosen=batch.chosen & (torch.arange(12) != 4)[:, None])
    found, told = followed(replace(asked, batch=gone))
    assert bool(found.isfinite().all())
    assert all(map(torch.isfinite, map(torch.tensor, told.values())))


@pytest.mark.parametrize("name", CASES)
def test_fields_are_left_as_they_were(name: str) -> None:
    """Nothing that the caller lends is changed in place (slime#2114: a KL was)."""
    asked = CASES[name](answers())
    lent = {n: x.clone() for n, x in asked.fields.items() if isinstance(x, Tensor)}
    old = asked.batch.logp.clone()
    followed(asked)
    assert all(torch.equal(asked.fields[n], x) for n, x in lent.items())
    assert torch.equal(asked.batch.logp, old)
