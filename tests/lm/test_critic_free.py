"""GRPO and its kin on trees: gradients by enumeration, what no cut or order may change, resuming."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from plaudit.lm.grpo import GRPOConfig, advantages, grpo
from plaudit.lm.learning import Surrogate, counted, learn
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.rollout import Drawn, RolloutKeys, learned_rows, rollout, scored
from plaudit.ops import SURROGATES
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.events import Checkpoint, Step
from plaudit.records.types import Trajectories
from tree_world import TWO_PROMPTS, TreeActor, TreeJudge, TreeRole, some_logits, some_rewards

TREE = TWO_PROMPTS
REWARD = some_rewards(TREE, 1)
START = some_logits(TREE, 0)
KEYS = SurrogateKeys()


def drawn(num: int = 6, seed: int = 0, table: list[Tensor] | None = None) -> Drawn:
    actor = TreeActor(TREE, START)
    batch = actor.generate(TREE.prompts, num_answers=num, sampling=TREE.sampling, seed=seed)
    judge = TreeJudge(TREE, {"score": REWARD if table is None else table})
    return scored(RolloutKeys(answers_per_prompt=num), batch, judge, taken=2)


def gradient(
    batch: Trajectories,
    adv: Tensor,
    *,
    loss: str = "clip",
    counting="tokens",
    micro: int | None = None,
    at: Tensor = START,
    **more,
) -> Tensor:
    actor = TreeActor(TREE, at, adam=False, micro=micro)
    weight, denominator = counted(counting, batch)
    fields = {"adv": adv[:, None] * batch.chosen, "weight": weight, **more.pop("fields", {})}
    actor.gradient(batch, Surrogate(loss, KEYS, **more), fields=fields, denominator=denominator)
    assert actor.logits.grad is not None
    return actor.logits.grad.clone()


def adv_of(found: Drawn, **keys) -> Tensor:
    return advantages(GRPOConfig(**keys), found, (1.0,))


# --- exactness


def test_rloo_in_expectation_is_the_policy_gradient() -> None:
    """Over all pairs of answers, weighted by their probability: ∇ E[r], by enumeration."""
    total = torch.zeros_like(START)
    for p, listed in enumerate(TREE.answers):
        probability = TREE.log_answers(START)[p].exp()
        for i, j in itertools.product(range(len(listed)), repeat=2):
            batch = TREE.batch([(p, listed[i]), (p, listed[j])])
            batch = replace(batch, logp=TreeRole(TREE, START).logprobs(batch))
            gap = REWARD[p][i] - REWARD[p][j]
            mine = gradient(batch, torch.stack([gap, -gap]), loss="sequence", counting="answer")
            total += probability[i] * probability[j] * mine
    logits = START.clone().requires_grad_(True)
    each = zip(TREE.log_answers(logits), REWARD, strict=True)
    torch.stack([(x.exp() * r).sum() for x, r in each]).sum().backward()
    assert torch.allclose(-total, logits.grad, atol=1e-12)


@pytest.mark.parametrize("loss", sorted(SURROGATES))
def test_all_surrogates_are_one_where_the_policies_are(loss: str) -> None:
    """At ρ = 1 the gradient is that of −A log π, with answers of equal length."""
    found = drawn()
    rows = [i for i in range(len(found.batch)) if int(found.batch.chosen[i].sum()) == 2]
    batch = found.batch.select(rows)
    adv = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    score = TreeActor(TREE, START)
    logp = score.stats(batch)["logp"]
    (-(adv[:, None] * logp) / 2 / len(rows)).sum().backward()
    assert score.logits.grad is not None
    wanted = score.logits.grad
    if loss == "sequence":  # the product of the ratios: its slope is the sum, not the mean
        wanted = 2 * wanted
    found_gradient = gradient(batch, adv, loss=loss, counting="answer")
    assert torch.allclose(found_gradient, wanted, atol=1e-14)


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        ("clip", lambda r, a: -min(r * a, min(max(r, 0.8), 1.2) * a)),
        ("cispo", lambda r, a: None),
        ("sapo", lambda r, a: None),
    ],
)
def test_token_surrogates_off_policy(loss: str, wanted) -> None:
    ratio = torch.tensor([[0.5, 0.9, 1.1, 1.5, 7.0]], dtype=torch.float64)
    mask = torch.ones_like(ratio, dtype=torch.bool)
    for sign in (1.0, -1.0):
        adv = torch.full_like(ratio, sign)
        logp = ratio.log().requires_grad_(True)
        value = SURROGATES[loss](logp, torch.zeros_like(ratio), adv, mask, KEYS)
        value.sum().backward()
        assert logp.grad is not None
        for r, v, g in zip(
            ratio[0].tolist(), value[0].tolist(), logp.grad[0].tolist(), strict=True
        ):
            if loss == "clip":
                assert v == pytest.approx(wanted(r, sign))
                held = (r > 1.2 and sign > 0) or (r < 0.8 and sign < 0)
                assert g == pytest.approx(0.0 if held else -r * sign)
            if loss == "cispo":  # never 0, and the cap is absolute
                assert g == pytest.approx(-min(r, 5.0) * sign)
            if loss == "sapo":
                tau = 1.0 if sign > 0 else 1.05
                s = 1 / (1 + torch.tensor(-tau * (r - 1)).exp().item())
                assert g == pytest.approx(-4 * s * (1 - s) * r * sign)


def test_gspo_holds_whole_answers_and_gmpo_each_ratio_first() -> None:
    ratio = torch.tensor([[1.6, 0.9], [1.05, 1.1]], dtype=torch.float64)
    mask = torch.ones_like(ratio, dtype=torch.bool)
    adv, zero = torch.ones_like(ratio), torch.zeros_like(ratio)
    gspo = SURROGATES["gspo"](ratio.log(), zero, adv, mask, KEYS)
    assert gspo[0].tolist() == pytest.approx([-((1.6 * 0.9) ** 0.5)] * 2)  # 1.2 exactly, inside
    gmpo = SURROGATES["gmpo"](ratio.log(), zero, adv, mask, SurrogateKeys(0.4, 0.4))
    held = min(torch.tensor(1.6).log().item(), 0.4)
    wanted = -torch.tensor((held + torch.tensor(0.9).log().item()) / 2).exp().item()
    assert gmpo[0].tolist() == pytest.approx([wanted] * 2)


# --- advantages


def test_groups_without_a_signal_have_no_advantage_at_all() -> None:
    alike = [torch.full_like(r, 0.1 + 0.2) for r in REWARD]
    found = drawn(table=alike)
    for scale in ("group", "batch", "none"):
        assert (adv_of(found, scale=scale) == 0).all()
    config = RLOOConfig(num_steps=1, kl_coef=0.0, prompts_per_step=2)
    judge = TreeJudge(TREE, {"score": alike})
    told = [e for e in _events(rloo, config, TreeActor(TREE, START), judge) if isinstance(e, Step)]
    assert told[0].metrics["groups/with_signal"] == 0.0
    assert told[0].metrics["grad_norm"] == 0.0


def test_an_answer_that_nobody_judged_takes_no_part() -> None:
    """Its group's statistics, the loss and the denominator are those of a batch without it."""
    found = drawn(num=5)
    score = found.score.clone()
    heard = torch.ones(len(score), dtype=torch.bool)
    heard[[1, 7]] = False
    partly = replace(found, score=torch.where(heard, score, 0.0), heard=heard)
    without = found.select([i for i in range(len(score)) if bool(heard[i])])
    for scale in ("group", "batch", "none"):
        assert torch.allclose(adv_of(partly, scale=scale)[heard], adv_of(without, scale=scale))
    rows = learned_rows(GRPOConfig(), partly)
    assert rows == [i for i in range(len(score)) if bool(heard[i])]


def test_all_rewards_abstaining_is_not_a_score_of_zero() -> None:
    """trl#5902: a sum that skips NaN made rows that nobody judged worth 0."""
    table = [r.clone() for r in REWARD]
    table[0][2] = torch.nan
    found = drawn(num=12, table=table)
    assert not bool(found.heard.all())
    assert len(learned_rows(GRPOConfig(), found)) == int(found.heard.sum()) < 24


def test_several_rewards_apart_do_not_drown_the_small_one() -> None:
    large, small = [100 * r for r in REWARD], [0.01 * r.flip(0) for r in REWARD]
    batch = drawn(num=8).batch
    judge = TreeJudge(TREE, {"large": large, "small": small})
    found = scored(RolloutKeys(), batch, judge, taken=2)
    apart = advantages(GRPOConfig(combine="apart", eps=0.0), found, judge.weights)
    swapped = scored(
        RolloutKeys(), batch, TreeJudge(TREE, {"a": [1e4 * s for s in small], "b": REWARD}),
        taken=2,
    )  # fmt: skip
    assert torch.allclose(
        apart, advantages(GRPOConfig(combine="apart", eps=0.0), swapped, (1.0, 1.0)), atol=1e-9
    )
    assert float(apart.mean().abs()) < 1e-12


# --- what changes nothing


@pytest.mark.parametrize("counting", ["answer", "tokens", "constant"])
@pytest.mark.parametrize("micro", [1, 3])
def test_a_cut_into_parts(counting: str, micro: int) -> None:
    found = drawn()
    adv = adv_of(found)
    ref = {"logp_ref": TreeRole(TREE, some_logits(TREE, 5)).logprobs(found.batch)}
    keys = {"counting": counting, "kl_coef": 0.3, "entropy_coef": 0.1, "fields": ref}
    at = some_logits(TREE, 3)
    whole = gradient(found.batch, adv, at=at, **{**keys, "fields": dict(ref)})
    parts = gradient(found.batch, adv, micro=micro, at=at, **{**keys, "fields": dict(ref)})
    assert torch.allclose(parts, whole, atol=1e-14)


@pytest.mark.parametrize("counting", ["answer", "tokens", "constant"])
def test_the_order_of_rows_and_rows_twice(counting: str) -> None:
    found = drawn()
    adv, at = adv_of(found), some_logits(TREE, 3)
    whole = gradient(found.batch, adv, at=at, counting=counting)
    for rows in (list(range(len(adv)))[::-1], [*range(len(adv)), *range(len(adv))]):
        again = gradient(found.batch.select(rows), adv[rows], at=at, counting=counting)
        assert torch.allclose(again, whole, atol=1e-14)


@pytest.mark.parametrize("counting", ["answer", "tokens"])
def test_padding_and_an_empty_answer(counting: str) -> None:
    found = drawn()
    batch, adv, at = found.batch, adv_of(found), some_logits(TREE, 3)
    whole = gradient(batch, adv, at=at, counting=counting)
    wider = {
        name: torch.nn.functional.pad(getattr(batch, name), (0, 4))
        for name in ("token", "there", "chosen", "logp")
    }
    padded = gradient(replace(batch, **wider), adv, at=at, counting=counting)
    assert torch.allclose(padded, whole, atol=1e-14)
    empty = replace(batch.select([0]), chosen=torch.zeros_like(batch.chosen[:1]))
    assert learned_rows(GRPOConfig(), replace(found.select([0]), batch=empty)) == []


def test_cut_answers_leave_the_loss_and_its_denominator() -> None:
    """trl#6439: tokens of masked answers stayed in the denominator."""
    found = drawn()
    truncated = torch.zeros(len(found.batch), dtype=torch.bool)
    truncated[::3] = True
    partly = replace(found, batch=replace(found.batch, truncated=truncated))
    rows = learned_rows(GRPOConfig(truncated="mask"), partly)
    assert rows == [i for i in range(len(truncated)) if not bool(truncated[i])]
    adv = adv_of(partly)
    _, denominator = counted("tokens", found.batch.select(rows))
    assert denominator == float(found.batch.chosen[rows].sum())
    assert len(learned_rows(GRPOConfig(), partly)) == len(adv)
    fined = scored(
        RolloutKeys(truncated="penalty", truncated_penalty=0.7),
        partly.batch,
        TreeJudge(TREE, {"score": REWARD}),
        taken=2,
    )
    assert torch.allclose(found.score - fined.score, 0.7 * truncated.double())


def test_overlong_answers_are_fined_linearly() -> None:
    """DAPO's soft punishment: nothing up to the limit less the margin, all of it at the limit."""
    batch = TREE.batch([(0, (0,)), (0, (1, 0)), (0, (2, 0, 0))])
    judge = TreeJudge(TREE, {"score": [torch.zeros_like(r) for r in REWARD]})
    found = scored(RolloutKeys(overlong=2, truncated_penalty=1.0), batch, judge, taken=1)
    assert found.score.tolist() == [0.0, -0.5, -1.0]


# --- loops


def _events(loop, config, actor, judge, saved=None):
    return loop(
        config,
        actor=actor,
        judge=judge,
        reference=TreeRole(TREE, START),
        prompts=list(TREE.prompts),
        sampling=TREE.sampling,
        seed=0,
        saved=saved,
    )


LOOPS = {
    "grpo": (grpo, GRPOConfig(num_steps=6, prompts_per_step=2, answers_per_prompt=4, refills=2,
                              num_minibatches=2, kl_coef=0.1, entropy_coef=0.01,
                              entropy_target=0.5, save_every=1)),
    "rloo": (rloo, RLOOConfig(num_steps=6, prompts_per_step=2, refills=2, save_every=1)),
    "reinforce_pp": (reinforce_pp, ReinforcePPConfig(num_steps=6, prompts_per_step=2,
                                                     num_epochs=2, save_every=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(name: str, stop: int) -> None:
    loop, config = LOOPS[name]
    # two of three answers score alike, so that refills are needed
    judge = TreeJudge(TREE, {"score": [(r > 0.8).double() for r in REWARD]})
    whole = TreeActor(TREE, START)
    steps = [e.metrics for e in _events(loop, config, whole, judge) if isinstance(e, Step)]
    first = TreeActor(TREE, START)
    for event in _events(loop, config, first, judge):
        if isinstance(event, Checkpoint) and event.step == stop:
            saved = event.state()
            saved = ({k: v.clone() for k, v in saved[0].items()}, saved[1])
            break
    second = TreeActor(TREE, torch.zeros_like(START))
    rest = [e.metrics for e in _events(loop, config, second, judge, saved) if isinstance(e, Step)]
    assert rest == steps[stop:]
    assert torch.equal(second.logits, whole.logits)


def test_refills_are_bounded_and_counted() -> None:
    alike = TreeJudge(TREE, {"score": [torch.zeros_like(r) for r in REWARD]})
    config = GRPOConfig(num_steps=1, prompts_per_step=2, answers_per_prompt=4, refills=3)
    found = rollout(
        config, TreeActor(TREE, START), alike, TREE.prompts,
        place=0, step=0, sampling=TREE.sampling, seed=0,
    )  # fmt: skip
    assert found.taken == 8
    assert found.signal == 0.0
    some = TreeJudge(TREE, {"score": REWARD})
    config = GRPOConfig(num_steps=1, prompts_per_step=2, answers_per_prompt=8, refills=3)
    found = rollout(
        config, TreeActor(TREE, START), some, TREE.prompts,
        place=0, step=0, sampling=TREE.sampling, seed=0,
    )  # fmt: skip
    assert found.taken == 2
    assert found.signal == 1.0


def test_importance_weights_multiply_what_a_token_counts_for() -> None:
    found = drawn()
    adv = adv_of(found)[:, None] * found.batch.chosen
    actor = TreeActor(TREE, START, adam=False)
    config = GRPOConfig()
    half = {"adv": adv, "importance": torch.full_like(adv, 0.5)}
    loss = Surrogate("clip", KEYS)
    learn(config, actor, found.batch, loss, half, counting="tokens", lr=0.0, key=(0,))
    assert actor.logits.grad is not None
    mine = actor.logits.grad.clone()
    assert torch.allclose(2 * mine, gradient(found.batch, adv_of(found)), atol=1e-14)
