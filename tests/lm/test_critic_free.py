"""GRPO and its kin on trees: advantages, what is fined or left out, refills, resuming; gradients are in
test_policy_oracles, what may change nothing in test_invariances."""

from __future__ import annotations

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


# --- cut answers


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


def test_nobody_judged_anything() -> None:
    """All rewards abstain from a whole rollout: nothing is learned, and nothing breaks."""
    silent = [torch.full_like(r, torch.nan) for r in REWARD]
    found = drawn(table=silent)
    for combine in ("sum", "apart"):
        assert (adv_of(found, combine=combine) == 0).all()
    assert learned_rows(GRPOConfig(), found) == []
