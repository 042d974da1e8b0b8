"""Defects of other libraries' losses and loops, each by name, with the number that is right.

The threads and figures are those of our notes on them (July to November 2026). What concerns `ops`
alone is in tests/ops/test_ops_known_defects.py; gradients in general are held by the oracles
(test_preference_oracles, test_policy_oracles), cuts and padding in general by test_invariances.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from oracles import enumerated as e
from plaudit.lm.grpo import GRPOConfig
from plaudit.lm.grpo import advantages as grpo_advantages
from plaudit.lm.learning import Surrogate
from plaudit.lm.reinforce_pp import advantages as token_advantages
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.rollout import learned_rows
from plaudit.lm.steps import corrected, credit, token_steps
from plaudit.ops import SURROGATES, kl_k3, leave_one_out_advantage, outcome_reward
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.losses import Part
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories
from tree_runs import REWARD, drawn, steps_of
from tree_world import (
    BANDIT,
    TWO_PROMPTS,
    TreeActor,
    TreeReference,
    some_logits,
)

KEYS = SurrogateKeys()


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def part_of(logp: Tensor, *, old: Tensor | None = None, denominator: float = 1.0, **fields) -> Part:
    """One row of chosen tokens for a policy loss."""
    row = logp[None]
    fields = {n: x[None] for n, x in fields.items()}
    fields.setdefault("weight", torch.ones_like(row))
    statistics = {"logp": row, "entropy": torch.zeros_like(row)}
    before = torch.zeros_like(row) if old is None else old[None]
    chosen = torch.ones(row.shape, dtype=torch.bool)
    return Part(chosen, before, denominator, statistics, fields)


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
