"""Critic-free losses and PPO on trees, against loops over rows and tokens, and enumerated gradients.

The loss is called as a loop calls it: as a value, on a batch of draws or of all groups at once, with
fields and a denominator of the whole batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from oracles import enumerated as e
from oracles import group_formulas as g
from plaudit.lm.grpo import GRPOConfig
from plaudit.lm.grpo import advantages as grpo_advantages
from plaudit.lm.learning import Surrogate, counted
from plaudit.lm.ppo import ClippedPolicy
from plaudit.lm.reinforce_pp import advantages as token_advantages
from plaudit.lm.rollout import Drawn, RolloutKeys, scored
from plaudit.lm.steps import credit, token_steps
from plaudit.ops import SURROGATES, leave_one_out_advantage, outcome_reward
from plaudit.ops.policy_losses import OF_ANSWERS, SurrogateKeys
from plaudit.records.types import Trajectories
from tree_world import (
    BANDIT,
    LOPSIDED,
    SQUARE,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeJudge,
    TreeReference,
    TreeReward,
    some_logits,
    some_rewards,
)

TREES = {"bandit": BANDIT, "two prompts": TWO_PROMPTS, "lopsided": LOPSIDED}
WITHIN = {torch.float64: 1e-10, torch.float32: 1e-6}
KEYS = SurrogateKeys(clip_low=0.2, clip_high=0.3, cap=1.5)
FORMULAS: dict[str, Callable[..., Tensor]] = {
    "clip": lambda x, y, a: g.clip(x, y, a, low=0.2, high=0.3),
    "sequence": lambda x, y, a: g.sequence(x, y, a, low=0.2, high=0.3),
    "gspo": lambda x, y, a: g.gspo(x, y, a, low=0.2, high=0.3),
    "gmpo": lambda x, y, a: g.gmpo(x, y, a, low=0.2, high=0.3),
    "cispo": lambda x, y, a: g.cispo(x, y, a, cap=1.5),
    "sapo": lambda x, y, a: g.sapo(x, y, a, tau_up=1.0, tau_down=1.05),
}
COUNTINGS = {
    "answer": g.mean_of_answers,
    "tokens": g.mean_of_tokens,
    "constant": lambda rows: g.over_constant(rows, longest=3),
}


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype = torch.float64) -> None:
    size = max(1.0, float(wanted.abs().max()))
    assert float((found.double() - wanted).abs().max()) <= WITHIN[dtype] * size


def learned(
    actor: TreeActor, batch: Trajectories, adv: Tensor, loss: Surrogate, counting: str, **fields
) -> Tensor:
    """The gradient that a critic-free loop follows."""
    weight, denominator = counted(counting, batch)  # type: ignore[arg-type]
    fields |= {"adv": adv.to(weight)[:, None] * batch.chosen, "weight": weight}
    actor.gradient(batch, loss, fields=fields, denominator=denominator)
    assert actor.logits.grad is not None
    return actor.logits.grad


def rows_of(tree: Tree, logits: Tensor, batch: Trajectories) -> list[Tensor]:
    """log π of each row's tokens, by the oracle."""
    every = [row for rows in e.token_logps(tree, logits) for row in rows]
    return [every[i] for i in tree.numbers(batch).tolist()]


# --- off policy: the formulas


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("counting", COUNTINGS)
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", WITHIN)
def test_a_moved_policy(tree: Tree, counting: str, name: str, dtype: torch.dtype) -> None:
    old, now = some_logits(tree, 0).to(dtype), some_logits(tree, 3).to(dtype)
    batch = tree.draw(old, tree.prompts, 8, seed=1)
    batch = replace(batch, sampling=batch.sampling.model_copy(update={"max_new_tokens": 3}))
    adv = torch.linspace(-1.5, 2, len(batch), dtype=torch.float64)

    def formula(z: Tensor) -> Tensor:
        logp, logp_old = rows_of(tree, z, batch), rows_of(tree, old.double(), batch)
        each = [
            FORMULAS[name](x, y, a) for x, y, a in zip(logp, logp_old, adv.tolist(), strict=True)
        ]
        return COUNTINGS[counting](each)

    actor = TreeActor(tree, now, adam=False)
    found = learned(actor, batch, adv.to(dtype), Surrogate(name, KEYS), counting)
    close(found, e.slope(tree, formula, now.double()), dtype)


def test_the_ratios_of_that_test_leave_the_range_on_both_sides() -> None:
    tree = TWO_PROMPTS
    batch = tree.draw(some_logits(tree, 0), tree.prompts, 8, seed=1)
    logp = TreeReference(tree, some_logits(tree, 3)).logprobs(batch)
    ratio = (logp - batch.logp)[batch.chosen].exp()
    assert bool((ratio < 0.8).any())
    assert bool((ratio > 1.5).any())
    assert bool(((ratio > 0.8) & (ratio < 1.3)).any())


def test_the_table_holds_the_formulas_and_no_other() -> None:
    assert set(SURROGATES) == set(FORMULAS)
    assert {"gspo", "gmpo", "sequence"} == set(OF_ANSWERS)


@pytest.mark.parametrize("counting", COUNTINGS)
def test_the_divergence_and_the_entropy_are_counted_as_the_loss_is(counting: str) -> None:
    tree = TWO_PROMPTS
    old, now, ref = (some_logits(tree, seed) for seed in (0, 0, 5))
    batch = tree.draw(old, tree.prompts, 8, seed=1)
    adv = torch.linspace(-1.5, 2, len(batch), dtype=torch.float64)

    def entropies(z: Tensor) -> list[Tensor]:
        logp = z.masked_fill(~tree.allowed, -1e30).log_softmax(1)
        each = -(logp.exp() * logp.masked_fill(~tree.allowed, 0.0)).sum(1)
        return [each[[tree.nodes[p, a[:t]] for t in range(len(a))]] for p, a in tree.rows(batch)]

    def formula(z: Tensor) -> Tensor:
        logp, beside = rows_of(tree, z, batch), rows_of(tree, ref, batch)
        each = [
            -a * torch.exp(x - x.detach()) + 0.3 * g.k2(x, y) - 0.1 * h
            for x, y, h, a in zip(logp, beside, entropies(z), adv.tolist(), strict=True)
        ]
        return COUNTINGS[counting](each)

    loss = Surrogate("clip", KEYS, kl_coef=0.3, entropy_coef=0.1)
    logp_ref = TreeReference(tree, ref).logprobs(batch)
    found = learned(TreeActor(tree, now), batch, adv, loss, counting, logp_ref=logp_ref)
    close(found, e.slope(tree, formula, now))


def test_the_divergence_of_a_moved_policy_has_its_own_gradient() -> None:
    """Every answer of one token, counted by the probability that the old policy drew it with: the
    gradient is that of KL(π ‖ π_ref) at the policy as it is now."""
    tree = BANDIT
    old, now, ref = (some_logits(tree, seed) for seed in (0, 3, 5))
    batch = tree.batch(logits=old)
    share = torch.cat(e.answer_logps(tree, old)).exp()
    fields = {
        "adv": torch.zeros_like(batch.logp),
        "weight": share[:, None] * batch.chosen,
        "logp_ref": TreeReference(tree, ref).logprobs(batch),
    }
    actor = TreeActor(tree, now)
    actor.gradient(batch, Surrogate("clip", KEYS, kl_coef=1.0), fields=fields, denominator=1.0)
    assert actor.logits.grad is not None
    close(actor.logits.grad, e.slope(tree, lambda z: e.divergence(tree, z, ref), now))


def test_a_loss_of_ppo_is_the_clipped_one_by_tokens() -> None:
    tree = TWO_PROMPTS
    old, now = some_logits(tree, 0), some_logits(tree, 3)
    batch = tree.draw(old, tree.prompts, 8, seed=1)
    adv = torch.randn(batch.chosen.shape, generator=torch.Generator().manual_seed(0)).double()

    def formula(z: Tensor) -> Tensor:
        each = []
        for i, (x, y) in enumerate(
            zip(rows_of(tree, z, batch), rows_of(tree, old, batch), strict=True)
        ):
            each.append(torch.cat([g.clip(x[t : t + 1], y[t : t + 1], float(adv[i, t]), low=0.2, high=0.2)
                                   for t in range(len(x))]))  # fmt: skip
        return g.mean_of_tokens(each)

    actor = TreeActor(tree, now)
    actor.gradient(
        batch, ClippedPolicy(0.2), fields={"adv": adv}, denominator=int(batch.chosen.sum())
    )
    close(actor.logits.grad, e.slope(tree, formula, now))


# --- on policy: one identity, and expectations over all groups


@pytest.mark.parametrize("counting", COUNTINGS)
@pytest.mark.parametrize("tree", [BANDIT, SQUARE])
def test_at_ratio_1_all_surrogates_have_one_gradient(tree: Tree, counting: str) -> None:
    """With answers of one length, −A·∇log π up to what a token counts for; the product of an
    answer's ratios, of which every token carries the whole, counts as often as it has tokens."""
    logits = some_logits(tree, 0)
    batch = tree.draw(logits, tree.prompts, 16, seed=0)
    adv = torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = {
        name: learned(TreeActor(tree, logits), batch, adv, Surrogate(name, KEYS), counting).clone()
        for name in FORMULAS
    }
    found["sequence"] /= tree.longest
    actor = TreeActor(tree, logits)
    weight, denominator = counted(counting, batch)  # type: ignore[arg-type]
    fields = {"adv": adv[:, None] * weight}
    actor.gradient(batch, ClippedPolicy(0.2), fields=fields, denominator=denominator)
    for gradient in found.values():
        torch.testing.assert_close(gradient, actor.logits.grad, rtol=0, atol=1e-15)
    assert float(actor.logits.grad.abs().max()) > 1e-3


def test_at_ratio_1_answers_of_unequal_lengths_keep_the_identity_where_means_are_theirs() -> None:
    """Counted by answers, an answer's mean of token losses is its one number's: GSPO and GMPO."""
    tree, logits = TWO_PROMPTS, some_logits(TWO_PROMPTS, 0)
    batch = tree.draw(logits, tree.prompts, 16, seed=0)
    adv = torch.linspace(-1, 1, 32, dtype=torch.float64)
    wanted = learned(TreeActor(tree, logits), batch, adv, Surrogate("clip", KEYS), "answer")
    for name in ("gspo", "gmpo", "cispo", "sapo"):
        found = learned(TreeActor(tree, logits), batch, adv, Surrogate(name, KEYS), "answer")
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)


def all_groups(tree: Tree, logits: Tensor, size: int) -> tuple[Trajectories, Tensor]:
    """Every group of `size` answers to each prompt as a batch, and each group's probability."""
    rows, group, chance = [], [], []
    for p, logs in enumerate(e.answer_logps(tree, logits)):
        for picks in itertools.product(range(len(logs)), repeat=size):
            group += [len(chance)] * size
            rows += [(p, tree.answers[p][k]) for k in picks]
            chance.append(float(logs[list(picks)].sum().exp()))
    batch = tree.batch(rows, logits=logits)
    prompts = [tree.prompts[rows[i][0]] for i in range(0, len(rows), size)]
    batch = replace(batch, prompts=tuple(prompts), group=torch.tensor(group))
    return batch, torch.tensor(chance, dtype=torch.float64)


def expected_by_us(
    tree: Tree,
    logits: Tensor,
    size: int,
    advantage: Callable[[Drawn], Tensor],
    counting: str,
    *,
    loss: str = "clip",
    kl_coef: float = 0.0,
    ref: Tensor | None = None,
    in_reward: bool = False,
) -> Tensor:
    """Σ P(group)·gradient of the loss on that group alone, all groups at once: what a token counts
    for and the denominator are the group's own."""
    batch, chance = all_groups(tree, logits, size)
    judge = TreeJudge(tree, {"score": some_rewards(tree, 1)})
    drawn = scored(RolloutKeys(answers_per_prompt=size), batch, judge, taken=len(chance))
    fields = {}
    if ref is not None:
        fields["logp_ref"] = TreeReference(tree, ref).logprobs(batch)
        if in_reward:
            distance = ((batch.logp - fields["logp_ref"]) * batch.chosen).sum(1)
            drawn = replace(drawn, score=drawn.score - kl_coef * distance)
    weight = torch.zeros(batch.chosen.shape, dtype=torch.float64)
    for number in range(len(chance)):
        rows = list(range(number * size, (number + 1) * size))
        own, denominator = counted(counting, batch.select(rows))  # type: ignore[arg-type]
        weight[rows] = chance[number] * own / denominator
    actor = TreeActor(tree, logits)
    fields |= {"adv": advantage(drawn)[:, None] * batch.chosen, "weight": weight}
    value = Surrogate(loss, KEYS, kl_coef=0.0 if in_reward else kl_coef)
    actor.gradient(batch, value, fields=fields, denominator=1.0)
    assert actor.logits.grad is not None
    return -actor.logits.grad


def by_grpo(**keys) -> Callable[[Drawn], Tensor]:
    return lambda drawn: grpo_advantages(GRPOConfig(**keys), drawn, (1.0,))


def by_rloo(drawn: Drawn) -> Tensor:
    return drawn.groups.back(
        leave_one_out_advantage(*drawn.groups.spread(drawn.score, drawn.heard))
    )


def constant_of(tree: Tree) -> Callable[[np.ndarray], np.ndarray]:
    return lambda length: e.of_constant(length) / tree.longest


METHODS = {
    "grpo": (by_grpo(eps=1e-4), e.vectorised(g.grpo, ddof=1, eps=1e-4), "answer"),
    "grpo, ddof 0": (by_grpo(ddof=0, eps=0.0), e.vectorised(g.grpo, ddof=0, eps=0.0), "answer"),
    "dapo": (by_grpo(eps=1e-4), e.vectorised(g.grpo, ddof=1, eps=1e-4), "tokens"),
    "dr_grpo": (by_grpo(scale="none"), e.vectorised(g.dr_grpo), "constant"),
    "rloo": (by_rloo, e.vectorised(g.rloo), "answer"),
}


@pytest.mark.parametrize("tree", [TWO_PROMPTS, LOPSIDED])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_expected_gradients_of_the_methods(tree: Tree, size: int, name: str) -> None:
    ours, theirs, counting = METHODS[name]
    logits = some_logits(tree, 0)
    weights = {"answer": e.of_answer, "tokens": e.of_tokens, "constant": constant_of(tree)}
    loss = "clip"
    if name == "rloo":  # an answer's number is on each of its tokens, which count as shares of it
        weights["answer"], loss = e.of_constant, "sequence"
    found = expected_by_us(tree, logits, size, ours, counting, loss=loss)
    wanted = e.group_gradient(tree, logits, some_rewards(tree, 1), size, theirs, weights[counting])
    close(found, wanted)
    if name == "rloo":
        exact = e.slope(tree, lambda z: e.expected_reward(tree, z, some_rewards(tree, 1)), logits)
        close(found, exact)


@pytest.mark.parametrize("in_reward", [False, True])
@pytest.mark.parametrize("name", ["dr_grpo", "grpo"])
def test_expected_gradients_with_the_divergence(name: str, in_reward: bool) -> None:
    tree = TWO_PROMPTS
    ours, theirs, counting = METHODS[name]
    weights = {"answer": e.of_answer, "constant": constant_of(tree)}
    logits, ref = some_logits(tree, 0), some_logits(tree, 5)
    found = expected_by_us(
        tree, logits, 2, ours, counting, kl_coef=0.4, ref=ref, in_reward=in_reward
    )
    wanted = e.group_gradient(
        tree, logits, some_rewards(tree, 1), 2, theirs, weights[counting],
        beta=0.4, ref=ref, kl="reward" if in_reward else "k2",
    )  # fmt: skip
    close(found, wanted)


@pytest.mark.parametrize("lam", [1.0, 0.6])
def test_ppo_with_the_right_values_follows_the_gradient_of_reward_less_divergence(lam) -> None:
    """Every answer once, counted by its probability; the critic knows the mean of what follows."""
    tree, beta = TWO_PROMPTS, 0.4
    logits, ref, reward = some_logits(tree, 0), some_logits(tree, 5), some_rewards(tree, 1)
    batch = tree.batch(logits=logits)
    share = torch.cat(e.answer_logps(tree, logits)).exp()
    logp_ref = TreeReference(tree, ref).logprobs(batch)
    left = TreeReward(tree, reward)(batch) - beta * (batch.logp - logp_ref)
    ahead = left.flip(1).cumsum(1).flip(1)  # what follows, from each token on
    value = torch.zeros_like(ahead)
    place = tree.places(batch)
    for node in range(len(tree.nodes)):
        here = (place == node) & batch.chosen
        mass = share[:, None] * here
        value[here] = (mass * ahead).sum() / mass.sum()
    steps = token_steps(
        batch,
        value=value,
        reward=TreeReward(tree, reward)(batch),
        logp_ref=logp_ref,
        kl_coef=beta,
    )
    adv, _ = credit(steps, gamma=1.0, lam=lam)
    actor = TreeActor(tree, logits)
    actor.gradient(batch, ClippedPolicy(0.2), fields={"adv": adv * share[:, None]}, denominator=1.0)

    def objective(z: Tensor) -> Tensor:
        return e.expected_reward(tree, z, reward) - beta * e.divergence(tree, z, ref)

    close(-actor.logits.grad, e.slope(tree, objective, logits))


# --- advantages of draws


def drawn(tables: dict[str, list[Tensor]], *, num: int, weights=None) -> Drawn:
    batch = TWO_PROMPTS.draw(some_logits(TWO_PROMPTS, 0), TWO_PROMPTS.prompts, num, seed=4)
    judge = TreeJudge(TWO_PROMPTS, tables, weights)
    return scored(RolloutKeys(answers_per_prompt=num), batch, judge, taken=2)


def groups_of(score: Tensor, group: Tensor) -> list[list[float]]:
    """The scores that were given, group by group."""
    return [
        [x for x, h in zip(score.tolist(), group.tolist(), strict=True) if h == k and x == x]
        for k in group.unique().tolist()
    ]


def flat(groups: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([x for group in groups for x in group], dtype=torch.float64)


@pytest.mark.parametrize("abstains", [False, True])
def test_advantages_of_groups(abstains: bool) -> None:
    table = some_rewards(TWO_PROMPTS, 1)
    if abstains:
        table[0][3] = table[1][0] = torch.nan
    found = drawn({"score": table}, num=9)
    groups = groups_of(found.scores["score"], found.batch.group)
    assert (sum(map(len, groups)) < 18) == abstains
    config = GRPOConfig
    for ours, theirs in (
        (config(scale="group", ddof=1, eps=1e-4), g.grpo(groups, ddof=1, eps=1e-4)),
        (config(scale="group", ddof=0, eps=1e-6), g.grpo(groups, ddof=0, eps=1e-6)),
        (config(scale="none"), g.dr_grpo(groups)),
        (config(scale="batch", ddof=1, eps=1e-4), g.batch_scaled(groups, ddof=1, eps=1e-4)),
    ):
        adv = grpo_advantages(ours, found, (1.0,))
        close(adv[found.heard], flat(theirs))
        assert bool((adv[~found.heard] == 0).all())
    close(by_rloo(found)[found.heard], flat(g.rloo(groups)))


def test_rewards_apart() -> None:
    """GDPO: 0.2 of a reward in hundreds beside 1 of one in hundredths."""
    first = some_rewards(TWO_PROMPTS, 1)
    tables = {"a": [300 * r for r in first], "b": [0.01 * r.flip(0) for r in first]}
    found = drawn(tables, num=8, weights=(0.2, 1.0))
    groups = [groups_of(found.scores[name], found.batch.group) for name in tables]
    wanted = g.gdpo(groups, [0.2, 1.0], ddof=1, eps=1e-4)
    adv = grpo_advantages(GRPOConfig(combine="apart", eps=1e-4), found, (0.2, 1.0))
    torch.testing.assert_close(adv, flat(wanted), rtol=0, atol=1e-6)  # its own eps of 1e-8


def test_token_returns_are_whitened_over_the_batch() -> None:
    tree, beta = TWO_PROMPTS, 0.3
    found = drawn({"score": some_rewards(tree, 1)}, num=6)
    batch = found.batch
    logp_ref = TreeReference(tree, some_logits(tree, 5)).logprobs(batch)
    distance = (batch.logp - logp_ref) * batch.chosen
    reward = outcome_reward(found.score, batch.chosen) - beta * distance
    lengths = batch.chosen.sum(1).tolist()
    kl = [row[:n] for row, n in zip(distance.tolist(), lengths, strict=True)]
    wanted = g.whitened_returns(found.score.tolist(), kl, beta=beta)
    adv = token_advantages(reward, batch)
    torch.testing.assert_close(adv[batch.chosen], flat(wanted), rtol=0, atol=1e-6)
    assert float(adv[batch.chosen].mean().abs()) < 1e-12
