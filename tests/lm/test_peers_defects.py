"""Defects of other libraries' losses and loops, each by name, with the number that is right.

The threads and figures are those of our notes on them (July to November 2026). What concerns `ops`
alone is in tests/ops/test_ops_known_defects.py; gradients in general are held by the oracles
(test_preference_oracles, test_policy_oracles), cuts and padding in general by test_invariances.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles import enumerated as e
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.grpo import advantages as grpo_advantages
from plaudit.lm.kto import KTOConfig, label_loss, mismatched_level
from plaudit.lm.learning import Surrogate, counted, learn
from plaudit.lm.loop import CrossEntropy, RunningMoments, minibatches
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.pairs import PairLoss, pair_loss
from plaudit.lm.ppo import ClippedPolicy, ClippedValue
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.reinforce_pp import advantages as token_advantages
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows, rollout, scored
from plaudit.lm.steps import corrected, credit, token_steps
from plaudit.ops import SURROGATES, kl_k3, leave_one_out_advantage, outcome_reward
from plaudit.ops.pair_losses import PairKeys
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.events import Step
from plaudit.records.losses import Part
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories
from tree_world import (
    BANDIT,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    bandit,
    some_logits,
    some_rewards,
)

START = some_logits(TWO_PROMPTS, 0)
REWARD = some_rewards(TWO_PROMPTS, 1)
KEYS = SurrogateKeys()


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def drawn(*tables: list[Tensor], num: int = 8, keys: RolloutKeys | None = None) -> Drawn:
    """Answers of the start to both prompts, with scores by table."""
    batch = TWO_PROMPTS.draw(START, TWO_PROMPTS.prompts, num, seed=4)
    judge = TreeJudge(TWO_PROMPTS, {f"r{i}": table for i, table in enumerate(tables or (REWARD,))})
    return scored(keys or RolloutKeys(answers_per_prompt=num), batch, judge, taken=2)


def part_of(logp: Tensor, *, old: Tensor | None = None, denominator: float = 1.0, **fields) -> Part:
    """One row of chosen tokens for a policy loss."""
    row = logp[None]
    fields = {n: x[None] for n, x in fields.items()}
    fields.setdefault("weight", torch.ones_like(row))
    statistics = {"logp": row, "entropy": torch.zeros_like(row)}
    before = torch.zeros_like(row) if old is None else old[None]
    chosen = torch.ones(row.shape, dtype=torch.bool)
    return Part(chosen, before, denominator, statistics, fields)


def steps_of(loop, config, *, judge=None, start=START, sampling=None, **roles) -> list[dict]:
    """What a run logs, step by step."""
    tree = TWO_PROMPTS
    events = loop(
        config,
        actor=roles.pop("actor", None) or TreeActor(tree, start),
        judge=judge or TreeJudge(tree, {"score": REWARD}),
        reference=TreeReference(tree, START),
        prompts=list(tree.prompts),
        sampling=sampling or tree.sampling,
        seed=0,
        **roles,
    )
    return [dict(event.metrics) for event in events if isinstance(event, Step)]


# --- distances


@pytest.mark.parametrize("seed", [5, 6])
def test_a_loss_of_the_distance_pulls_towards_the_reference_and_knows_which_it_is(seed) -> None:
    """rlhf-book: k1 of the wrong sign, k3 of the inverted ratio (KL 0.170 read as −0.170 and 0.310).
    AReaL: differentiated directly, the teacher drops out. open-instruct#530: under no_grad."""
    tree, ref = BANDIT, some_logits(BANDIT, seed)
    logits = some_logits(tree, 0)
    actor, batch = TreeActor(tree, logits), tree.batch(logits=logits)
    share = batch.logp.exp()
    fields = {
        "adv": 0 * share,
        "weight": share,
        "logp_ref": TreeReference(tree, ref).logprobs(batch),
    }
    actor.gradient(batch, Surrogate("clip", KEYS, kl_coef=1.0), fields=fields, denominator=1.0)
    exact = e.slope(tree, lambda z: e.divergence(tree, z, ref), logits)
    torch.testing.assert_close(actor.logits.grad, exact, rtol=0, atol=1e-12)
    told = steps_of(rloo, RLOOConfig(num_steps=1, lr=1e-9), start=some_logits(TWO_PROMPTS, 9))
    assert told[0]["objective/kl"] > 0


def test_the_distance_is_pulled_at_however_far_it_is() -> None:
    """verl clamps k3 at 10, so that its gradient is −12.5 at log(π_ref/π) = 2.6 and 0 at 3."""
    for gap in (2.6, 3.0, 8.0):
        logp = t(-gap).requires_grad_(True)
        kl_k3(logp, t(0.0)).sum().backward()
        assert float(logp.grad) == pytest.approx(1 - math.exp(gap), rel=1e-12)
        logp = t(-gap).requires_grad_(True)
        part = part_of(logp, old=logp.detach(), adv=t(0.0), logp_ref=t(0.0))
        Surrogate("clip", KEYS, kl_coef=1.0)(part)[0].backward()
        assert float(logp.grad) == pytest.approx(-gap, rel=1e-12)


def test_off_policy_the_distance_is_weighed_by_the_ratio() -> None:
    """TRL ≥ 1.10 and DeepSeek-V3.2: over what another policy drew, only ρ times the penalty has the
    gradient of KL(π‖π_ref). Enumerated: every answer, counted by who drew it."""
    tree = BANDIT
    old, now, ref = (some_logits(tree, seed) for seed in (0, 3, 5))
    actor, batch = TreeActor(tree, now), tree.batch(logits=old)
    share = batch.logp.exp()
    fields = {
        "adv": 0 * share,
        "weight": share,
        "logp_ref": TreeReference(tree, ref).logprobs(batch),
    }
    actor.gradient(batch, Surrogate("clip", KEYS, kl_coef=1.0), fields=fields, denominator=1.0)
    exact = e.slope(tree, lambda z: e.divergence(tree, z, ref), now)
    torch.testing.assert_close(actor.logits.grad, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_every_loss_has_the_distance_the_entropy_and_the_importance_weights(name: str) -> None:
    """trl#6807: a copied loss ignored KL correction, entropy and off-policy weights."""
    old, logp = t(-1.0, -2.0), t(-1.1, -1.7)
    plain = {"adv": t(0.5, 0.5), "logp_ref": t(-0.5, -2.5)}
    whole = Surrogate(name, KEYS, kl_coef=0.3, entropy_coef=0.1)
    only = Surrogate(name, KEYS)

    def slopes(loss: Surrogate, **fields) -> tuple[Tensor, Tensor]:
        x, h = logp.clone().requires_grad_(True), t(0.9, 0.4).requires_grad_(True)
        part = part_of(x, old=old, **plain, **fields)
        part = replace(part, statistics={**part.statistics, "entropy": h[None]})
        loss(part)[0].backward()
        assert x.grad is not None
        return x.grad, torch.zeros(2) if h.grad is None else h.grad

    x, h = slopes(whole)
    ratio = (logp - old).exp()
    torch.testing.assert_close(x - slopes(only)[0], 0.3 * ratio * (logp - plain["logp_ref"]))
    assert h.tolist() == [-0.1, -0.1]
    half = slopes(whole, weight=t(0.5, 0.5))
    torch.testing.assert_close(half[0], x / 2)
    torch.testing.assert_close(half[1], h / 2)


# --- advantages


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-9, 1e-6])
def test_identical_rewards_have_no_advantage(dtype: torch.dtype, eps: float) -> None:
    """OpenRLHF (ε 1e-9): up to 0.96 out of rounding; verl (1e-6): 0.26. NeMo-RL#4158: −2075."""
    alike = [torch.full((n,), 0.7, dtype=dtype) for n in TWO_PROMPTS.counts]
    nearly = [x.clone() for x in alike]
    for x in nearly:
        x[0] = torch.nextafter(x[0], torch.ones((), dtype=dtype))
    for table in (alike, nearly):
        found = drawn(table)
        for keys in (
            {"scale": "group"},
            {"scale": "batch"},
            {"scale": "none"},
            {"combine": "apart"},
        ):
            adv = grpo_advantages(GRPOConfig(eps=eps, **keys), found, (1.0,))
            assert bool((adv == 0).all()), keys
        assert bool(
            (leave_one_out_advantage(*found.groups.spread(found.score, found.heard)) == 0).all()
        )
        assert not bool(found.teaching().any())


def test_an_answer_left_alone_in_its_group_has_no_advantage() -> None:
    """verl: the advantage of a group of one is its raw reward."""
    table = [r.clone() for r in REWARD]
    found = drawn(table)
    alone = torch.arange(16) != torch.arange(16)
    alone[0] = alone[8] = alone[9] = True
    found = replace(found, heard=alone, scores={"r0": torch.where(alone, found.score, torch.nan)})
    for keys in ({"scale": "group"}, {"scale": "none"}, {"scale": "batch"}):
        adv = grpo_advantages(GRPOConfig(**keys), found, (1.0,))
        assert float(adv[0]) == 0.0
    values, heard = found.groups.spread(found.score, found.heard)
    assert float(found.groups.back(leave_one_out_advantage(values, heard))[0]) == 0.0


def test_a_row_that_all_abstain_from_is_not_an_answer_worth_0() -> None:
    """trl#5902: `nansum` made 0 of None, in about 30 % of DeepMath's rows."""
    table = [r + 10 for r in REWARD]
    quiet = [x.clone() for x in table]
    quiet[0][0] = quiet[1][2] = torch.nan
    found = drawn(quiet, quiet)
    heard = found.heard
    assert 0 < int((~heard).sum()) < 16
    rows = learned_rows(GRPOConfig(), found)
    assert rows == heard.nonzero()[:, 0].tolist()
    adv = grpo_advantages(GRPOConfig(scale="none"), found, (1.0, 1.0))
    for g in (0, 1):
        mine = (found.batch.group == g) & heard
        score = found.score[mine]
        torch.testing.assert_close(adv[mine], score - score.mean())
    white = token_advantages(
        outcome_reward(found.score, found.batch.chosen)[rows], found.batch.select(rows)
    )
    assert float(white.abs().max()) < 5  # AReaL#1351: suppressed rows shift the normalisation


def test_one_of_several_rewards_may_abstain() -> None:
    first, second = [r.clone() for r in REWARD], [2 * r for r in REWARD]
    first[0][1] = torch.nan
    found = drawn(first, second)
    whole = drawn(REWARD, second)
    gone = found.scores["r0"].isnan()
    assert bool(gone.any())
    assert bool(found.heard.all())
    torch.testing.assert_close(found.score[gone], found.scores["r1"][gone])
    torch.testing.assert_close(found.score[~gone], whole.score[~gone])


def test_several_rewards_are_whitened_over_answers_not_tokens() -> None:
    """verl whitens GDPO's sum over tokens, so that long answers weigh more."""
    found = drawn(REWARD, [0.01 * r.flip(0) for r in REWARD])
    adv = grpo_advantages(GRPOConfig(combine="apart"), found, (1.0, 1.0))
    assert float(adv.mean().abs()) < 1e-12
    assert float(adv.std(correction=0)) == pytest.approx(1, rel=1e-6)
    length = found.batch.chosen.sum(1)
    assert abs(float((adv * length).sum() / length.sum())) > 0.01


def test_whitened_token_returns_have_mean_0() -> None:
    """OpenRLHF#856: the mean advantage of REINFORCE++ stayed above 0."""
    found = drawn()
    adv = token_advantages(outcome_reward(found.score, found.batch.chosen), found.batch)
    assert float(adv[found.batch.chosen].mean().abs()) < 1e-12
    assert float(adv[found.batch.chosen].std(correction=0)) == pytest.approx(1, rel=1e-6)


def conversation(num_observed: int) -> Trajectories:
    """Two turns of one token with so many tokens of a tool between them, beside an answer of one."""
    n = num_observed
    there = torch.ones(2, n + 2, dtype=torch.bool)
    there[1, 1:] = False
    chosen = there.clone()
    chosen[0, 1 : n + 1] = False
    return Trajectories(
        prompts=(Prompt("x", (0,)),),
        group=torch.tensor([0, 0]),
        token=torch.zeros(2, n + 2, dtype=torch.int64),
        there=there,
        chosen=chosen,
        logp=torch.zeros(2, n + 2, dtype=torch.float64),
        terminated=torch.ones(2, dtype=torch.bool),
        truncated=torch.zeros(2, dtype=torch.bool),
        version=torch.zeros(2, dtype=torch.int64),
        texts=("", ""),
        sampling=Sampling(max_new_tokens=n + 2),
    )


@pytest.mark.parametrize("num_observed", [0, 1, 10, 100])
def test_a_return_is_carried_over_what_a_tool_says(num_observed: int) -> None:
    """verl#7278, #7300: REINFORCE++ zeroed it: the first turn learned nothing. Returns 1, 1 of the
    conversation and 0 of the other answer: whitened √½, √½ and −√2."""
    batch = conversation(num_observed)
    reward = torch.zeros(batch.chosen.shape, dtype=torch.float64)
    reward[0, -1] = 1.0
    adv = token_advantages(reward, batch)
    assert adv[0, 0].item() == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert adv[0, -1].item() == pytest.approx(math.sqrt(0.5), rel=1e-6)
    assert adv[1, 0].item() == pytest.approx(-math.sqrt(2), rel=1e-6)
    assert bool((adv[~batch.chosen] == 0).all())


@pytest.mark.parametrize("num_observed", [0, 1, 10, 100])
def test_ppos_credit_passes_what_a_tool_says_undecayed(num_observed: int) -> None:
    """OpenRLHF: 0.387 became 0.051 after ten observed tokens and −0.446 after a hundred."""
    batch = conversation(num_observed)
    value = torch.full(batch.chosen.shape, 7.0, dtype=torch.float64)
    value[0, 0], value[0, -1] = 0.45, 0.6
    reward = torch.zeros_like(value)
    reward[0, -1] = 0.85
    steps = token_steps(batch, value=value, reward=reward, logp_ref=batch.logp, kl_coef=0.1)
    adv, _ = credit(steps, gamma=1.0, lam=0.95)
    assert adv[0, 0].item() == pytest.approx(0.6 - 0.45 + 0.95 * 0.25)
    assert adv[0, 0].item() == pytest.approx(0.387, abs=6e-4)


# --- surrogates


def test_cispos_cap_is_absolute() -> None:
    """TRL 1.16: it falls back to ε = 0.2, so that every weight is 0.2; verl clips to [0.8, 1.2];
    5 is meant (ScaleRL)."""
    assert GRPOConfig(loss="cispo").coefficients.cap == 5.0
    for ratio, weight in ((0.1, 0.1), (1.0, 1.0), (3.0, 3.0), (50.0, 5.0)):
        logp = t(math.log(ratio)).requires_grad_(True)
        part = part_of(logp, old=t(0.0), adv=t(2.0))
        Surrogate("cispo", GRPOConfig(loss="cispo").coefficients)(part)[0].backward()
        assert float(logp.grad) == pytest.approx(-2 * weight, rel=1e-12)


def test_sapo_has_its_advantage() -> None:
    """unsloth-zoo#869: it was left out."""
    for a in (0.0, 0.5, -0.5):
        logp = t(-1.0).requires_grad_(True)
        Surrogate("sapo", KEYS)(part_of(logp, old=t(-1.0), adv=t(a)))[0].backward()
        assert float(logp.grad) == pytest.approx(-a, abs=1e-15)


def test_an_answers_ratio_is_the_exponential_of_the_sum() -> None:
    """unsloth-zoo#870: a sum of exponentials. Ratios 2 and ½: product 1, geometric mean 1; the sum
    would be 2½."""
    wide = SurrogateKeys(clip_low=0.9, clip_high=9.0)
    for name in ("sequence", "gspo", "gmpo"):
        found = SURROGATES[name](
            t(math.log(2), -math.log(2))[None], t(0, 0)[None], t(1, 1)[None],
            torch.ones(1, 2, dtype=torch.bool), wide,
        )  # fmt: skip
        assert found[0].tolist() == pytest.approx([-1, -1], rel=1e-12), name


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_has_no_advantage_has_no_loss_however_far_the_policy_went(name, dtype) -> None:
    """trl#7120: inf × 0. A row's ratio passes what float32 holds at 89 nats: 512 tokens by 0.18."""
    logp = torch.full((1, 512), 2.0, dtype=dtype, requires_grad=True)
    old, none = torch.zeros(1, 512, dtype=dtype), torch.zeros(1, 512, dtype=dtype)
    loss = SURROGATES[name](logp, old, none, torch.ones(1, 512, dtype=torch.bool), KEYS)
    loss.sum().backward()
    assert bool((loss == 0).all())
    assert bool((logp.grad == 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_answer_that_is_far_more_likely_than_it_was_is_clipped_and_left_alone(dtype) -> None:
    logp = torch.full((1, 512), 2.0, dtype=dtype, requires_grad=True)
    old, some = torch.zeros(1, 512, dtype=dtype), torch.ones(1, 512, dtype=dtype)
    loss = SURROGATES["sequence"](logp, old, some, torch.ones(1, 512, dtype=torch.bool), KEYS)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.full_like(loss, -1.2))
    assert bool((logp.grad == 0).all())


def test_a_drift_of_every_token_masks_no_answer() -> None:
    """trl#7120: 0.005 nats a token are a product of 4.5 over 300 tokens, and truncating by it
    dropped whole answers; OpenRLHF's `seq-mask-tis` promised weights held at a cap and held none.
    By tokens every weight is e^0.005; far away it is the cap."""
    batch = conversation(298)
    batch = replace(batch, chosen=batch.there)
    _, weight, apart = corrected(batch, batch.logp + 0.005, cap=2.0)
    assert weight[0].tolist() == pytest.approx([math.exp(0.005)] * 300, rel=1e-9)
    assert bool((weight[1, 1:] == 0).all())
    assert apart["sampler/ratio"] == pytest.approx(math.exp(0.005), rel=1e-9)
    _, weight, _ = corrected(batch, batch.logp + 800.0, cap=2.0)
    assert bool((weight[0] == 2.0).all())


# --- denominators, metrics and minibatches


def test_tokens_of_cut_answers_are_in_no_denominator() -> None:
    """trl#6439, #6369: they stayed in it. Four answers, one cut, 1 + 2 + 2 tokens left of 8."""
    batch = TWO_PROMPTS.batch([(0, (0,)), (0, (1, 0)), (0, (2, 0, 1)), (0, (1, 1))])
    cut = torch.tensor([False, False, True, False])
    found = replace(drawn(), batch=replace(batch, truncated=cut), heard=~torch.zeros(4).bool())
    rows = learned_rows(RolloutKeys(truncated="mask"), found)
    some = found.batch.select(rows)
    assert rows == [0, 1, 3]
    assert counted("tokens", some)[1] == 5
    assert counted("answer", some)[1] == 3
    assert counted("constant", some)[1] == 9


def test_a_loop_learns_nothing_of_cut_answers_where_they_are_masked() -> None:
    """Of the second prompt all answers are cut: no node of it has a gradient, and its tokens are in
    no count; of the first all are learned."""
    tree = Tree(TWO_PROMPTS.answers, 3, truncated=[(1, a) for a in TWO_PROMPTS.answers[1]])
    found = tree.draw(START, tree.prompts, 8, seed=0)
    assert found.truncated.tolist() == [False] * 8 + [True] * 8
    actor = TreeActor(tree, START, adam=False)
    config = GRPOConfig(num_steps=1, prompts_per_step=2, truncated="mask", lr=1e-9)
    told = steps_of(grpo, config, actor=actor)[0]
    second = [n for (p, _), n in tree.nodes.items() if p == 1]
    first = [n for (p, _), n in tree.nodes.items() if p == 0]
    assert not bool(actor.logits.grad[second].any())
    assert bool(actor.logits.grad[first].any())
    assert told["answer/finished"] == 0.5
    assert told["num_tokens"] < 8 * 3
    assert told["num_tokens"] < 16 * told["answer/length"]


def test_the_longest_answer_is_not_thereby_cut() -> None:
    """AReaL: a row as long as the batch's longest counted as cut, and lost its reward."""
    keys = RolloutKeys(answers_per_prompt=8, truncated="penalty", truncated_penalty=5.0)
    found = drawn(keys=keys)
    assert int(found.batch.chosen.sum(1).max()) == 3
    torch.testing.assert_close(found.score, drawn().score)
    assert len(learned_rows(RolloutKeys(truncated="mask"), found)) == 16


def test_the_last_token_is_learned_although_padding_has_its_id() -> None:
    """trl#6357, #6433: padding by the stop token masked it out of the loss, and models never
    stopped. Answer (1, 0) ends with the id that pads, 0."""
    tree = TWO_PROMPTS
    batch = tree.batch([(0, (1, 0)), (0, (2, 0, 0))])
    assert int(batch.token[0, 2]) == 0
    assert not bool(batch.chosen[0, 2])
    actor = TreeActor(tree, START)
    told = actor.gradient(batch, CrossEntropy(), denominator=int(batch.chosen.sum()))
    logp = e.token_logps(tree, START)[0]
    wanted = -(logp[1].sum() + logp[3].sum()) / 5
    assert told["loss"] == pytest.approx(float(wanted), rel=1e-12)
    assert float(actor.logits.grad[tree.nodes[0, (1,)]].abs().max()) > 0.01


def test_metrics_of_unequal_minibatches_are_those_of_the_whole() -> None:
    """trl#6380: averaged without weights. By a rate of 0 nothing moves between minibatches."""
    found = drawn(num=6)
    batch, adv = found.batch, grpo_advantages(GRPOConfig(), found, (1.0,))[:, None]
    at = some_logits(TWO_PROMPTS, 3)
    told = []
    for number in (1, 2):
        actor = TreeActor(TWO_PROMPTS, at, adam=False)
        config = RolloutKeys(num_minibatches=number)
        fields = {"adv": adv * batch.chosen}
        told.append(learn(config, actor, batch, Surrogate("clip", KEYS), fields,
                          counting="tokens", lr=0.0, key=(0,)))  # fmt: skip
    lengths = [int(batch.chosen[batch.group == g].sum()) for g in (0, 1)]
    assert lengths[0] != lengths[1]
    for name in ("loss/policy_avg", "policy/entropy_avg", "val/ratio", "policy/approxkl_avg"):
        assert told[1][name] == pytest.approx(told[0][name], rel=1e-12)
    assert told[1]["policy/num_updates"] == 2


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_the_critics_loss_is_not_multiplied_by_its_parts(micro: int) -> None:
    """verl#6957: 0.515 became 2.094 with four micro-batches."""
    tree, batch = TWO_PROMPTS, TWO_PROMPTS.batch(TWO_PROMPTS.every[:4])
    ret = math.sqrt(2 * 0.515) * batch.chosen.double()
    fields = {"ret": ret, "value_old": torch.zeros_like(ret)}
    critic = TreeCritic(tree, micro=micro)
    count = int(batch.chosen.sum())
    told = critic.gradient(batch, ClippedValue(10.0), fields=fields, denominator=count)
    assert told["loss/value_avg"] / count == pytest.approx(0.515, rel=1e-12)


def test_ragged_groups_lose_no_row() -> None:
    """OpenRLHF#1299, #1300: `zip` dropped ragged rows and the last rollout."""
    group = [0] * 5 + [1] * 2 + [2] + [3] * 4
    for number in (1, 2, 3, 7):
        dealt = [row for rows in minibatches(group, number=number, key=(1,)) for row in rows]
        assert sorted(dealt) == list(range(12))


@pytest.mark.parametrize("loop", [(grpo, GRPOConfig), (rloo, RLOOConfig),
                                  (reinforce_pp, ReinforcePPConfig)])  # fmt: skip
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_first_ratio_is_1_at_any_temperature(loop, temperature: float) -> None:
    """trl#4159: 2.0 on the first token; trl#5815, #5783: 0.569 of answers where 0.993 is right."""
    run, config = loop
    sampling = TWO_PROMPTS.sampling.model_copy(update={"temperature": temperature})
    told = steps_of(run, config(num_steps=3, prompts_per_step=2, lr=0.1), sampling=sampling)
    for metrics in told:
        assert metrics["val/ratio"] == pytest.approx(1.0, abs=1e-12)
        assert metrics["policy/approxkl_avg"] == pytest.approx(0.0, abs=1e-12)


def test_a_prompt_that_is_drawn_again_is_a_group_of_its_own() -> None:
    """With refills one prompt may come up twice in a step; its answers of both times must not be
    thrown into one group, which would be judged as one of twice the size."""
    tree = bandit(1, 4)
    config = GRPOConfig(num_steps=1, prompts_per_step=6, answers_per_prompt=4, refills=3)
    reward = [torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)]
    found = rollout(
        config, TreeActor(tree, torch.zeros(1, 4).double()), TreeJudge(tree, {"score": reward}),
        tree.prompts, place=0, step=0, sampling=tree.sampling, seed=1,
    )  # fmt: skip
    assert found.taken > 6  # it did refill
    counts = torch.bincount(found.batch.group)
    assert counts.tolist() == [4] * 6
    assert bool(found.teaching().all())


# --- preferences


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hopeless_pair_costs_its_lead_and_no_more(dtype: torch.dtype) -> None:
    """OpenRLHF's log-exp loss overflows, and ignores the margin."""
    chosen = torch.ones(2, 1, dtype=torch.bool)
    logp = torch.tensor([[-4000.0], [0.0]], dtype=dtype, requires_grad=True)
    pairs = Pairs((0,), (1,), (1.0,), (3.0,))
    fields = {"pairs": pairs, "ref": torch.zeros(2, dtype=dtype)}
    part = Part(chosen, torch.zeros(2, 1, dtype=dtype), 1.0, {"logp": logp}, fields)
    loss, _ = PairLoss("dpo", PairKeys(beta=0.1))(part)
    loss.backward()
    assert float(loss.detach()) == 403.0
    assert logp.grad[:, 0].tolist() == pytest.approx([-0.1, 0.1])


def test_the_level_of_bco_is_in_its_loss() -> None:
    """TRL's `bco_pair` has had none since February 2026 (a8f5faa57)."""
    logp = t(-1.0, -2.0)[:, None]
    fields = {"pairs": Pairs((0,), (1,), (1.0,)), "ref": torch.zeros(2, dtype=torch.float64)}
    part = Part(logp < 0, 0 * logp, 1.0, {"logp": logp}, fields)
    for delta in (0.0, -0.15, 2.0):
        loss, _ = PairLoss("bco", PairKeys(beta=0.1, delta=delta))(part)
        wanted = math.log(1 + math.exp(delta + 0.1)) + math.log(1 + math.exp(-0.2 - delta))
        assert float(loss) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("micro", [1, 2])
def test_what_belongs_to_the_optimisers_batch_is_not_taken_of_its_parts(micro: int) -> None:
    """TRL 1.16: KTO's z and DPO's `sft` term are means of micro-batches. Here they are settled
    before the update, and the cut changes nothing."""
    tree = bandit(3, 4)
    logits, ref = some_logits(tree, 3), some_logits(tree, 0)
    data, reference = tree.batch(), TreeReference(tree, ref)
    own = reference.logprobs(data).sum(1)
    found: list[list[Tensor]] = [[], []]
    for parts in (None, micro):
        actor = TreeActor(tree, logits, micro=parts)
        level = mismatched_level(0.4, actor, reference, data)
        assert level > 0
        good = torch.arange(12) % 3 > 0
        actor.gradient(
            data, label_loss(KTOConfig(beta=0.4), level),
            fields={"is_good": good, "ref": own}, denominator=12,
        )  # fmt: skip
        found[0].append(actor.logits.grad.clone())
        pairs = Pairs((0, 4, 5, 8), (1, 6, 7, 9), (1.0, 0.0, 0.5, 1.0))
        loss = pair_loss("dpo", PairKeys(), actor, data, pairs, own, RunningMoments(), nll_coef=1.0)
        actor.gradient(data, loss, fields={"pairs": pairs, "ref": own}, denominator=4)
        found[1].append(actor.logits.grad.clone())
    for whole, cut in found:
        torch.testing.assert_close(cut, whole, rtol=0, atol=1e-14)


def test_a_fall_of_the_chosen_answers_is_told() -> None:
    """trl#800, OpenRLHF#1054, LlamaFactory#7643: log π of chosen answers falls, and nobody says."""
    tree = TWO_PROMPTS
    data, reference = tree.batch(), TreeReference(tree, START)
    pairs = Pairs((5,), (4,), (1.0,))
    actor = TreeActor(tree, START, adam=False)
    config = DPOConfig(num_epochs=3, batch_size=1, lr=1.0)
    told = [
        event.metrics
        for event in dpo(
            config, actor=actor, data=data, pairs=pairs,
            logp_ref=reference.logprobs(data), seed=0,
        )
        if isinstance(event, Step)
    ]  # fmt: skip
    assert told[0]["logp/chosen_change"] == 0
    now = torch.cat(e.answer_logps(tree, START))
    assert told[0]["logp/chosen"] == pytest.approx(float(now[5]), rel=1e-12)
    assert told[0]["logp/rejected"] == pytest.approx(float(now[4]), rel=1e-12)
    assert told[2]["logp/chosen_change"] == pytest.approx(
        told[2]["logp/chosen"] - told[0]["logp/chosen"], rel=1e-9
    )


def test_online_pairs_leave_out_what_was_not_judged_and_what_is_alike() -> None:
    table = [REWARD[0].clone(), torch.full_like(REWARD[1], 0.3)]
    table[0][int(TWO_PROMPTS.log_answers(START)[0].argmax())] = torch.nan
    judge = TreeJudge(TWO_PROMPTS, {"score": table})
    config = OnlineDPOConfig(num_steps=1, prompts_per_step=2, answers_per_prompt=8, lr=1e-9)
    actor = TreeActor(TWO_PROMPTS, START, adam=False)
    told = steps_of(online_dpo, config, judge=judge, actor=actor)[0]
    assert told["groups/with_signal"] == 0.5
    assert told["answer/judged"] < 1
    assert told["loss"] == pytest.approx(math.log(2), rel=1e-6)
    second = [TWO_PROMPTS.nodes[1, a[:t]] for a in TWO_PROMPTS.answers[1] for t in range(len(a))]
    assert not bool(actor.logits.grad[second].any())


# --- PPO


@pytest.mark.parametrize("name", ["policy", "value"])
@pytest.mark.parametrize("micro", [1, (1, 2, 1), 3])
def test_accumulating_gradients_changes_no_step(name: str, micro: Any) -> None:
    """trl#3021: GRPO's results depended on it. NeMo-RL#3660: only the last chunk had a gradient."""
    batch = TWO_PROMPTS.batch(logits=START)
    some = torch.sin(torch.arange(batch.token.numel()).double()).view(batch.token.shape)
    fields = {"adv": some, "ret": some, "value_old": 0 * some}
    ends = []
    for parts in (None, micro):
        role: Any = TreeCritic(TWO_PROMPTS, micro=parts)
        loss: Any = ClippedValue(0.2)
        if name == "policy":
            role, loss = TreeActor(TWO_PROMPTS, START, micro=parts), ClippedPolicy(0.2)
        for _, lr in itertools.product(range(3), (0.1,)):
            role.update(batch, loss, fields=fields, denominator=20, lr=lr)
        ends.append(role.table.detach().clone())
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-9)
