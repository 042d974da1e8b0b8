"""Defects of other libraries' loops and preference losses, each by name, with the number that is right.

The first half is test_peers_defects.
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
from plaudit.lm.kto import KTOConfig, label_loss
from plaudit.lm.learning import Surrogate, counted, learn
from plaudit.lm.loop import CrossEntropy, RunningMoments, minibatches
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.pairs import PairLoss, pair_loss
from plaudit.lm.ppo import ClippedPolicy, ClippedValue
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.rollout import RolloutKeys, learned_rows, rollout
from plaudit.ops.pair_losses import PairKeys
from plaudit.ops.policy_losses import SurrogateKeys
from plaudit.records.events import Step
from plaudit.records.losses import Part
from plaudit.records.pairs import Pairs
from tree_runs import REWARD, START, drawn, steps_of
from tree_world import (
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    bandit,
    level_of,
    some_logits,
)

KEYS = SurrogateKeys()


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


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
        level = level_of(0.4, actor, reference, data)
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
