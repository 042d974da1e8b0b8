"""Where algorithms come to rest on worlds whose every answer can be listed.

Trees with unequal branches and lengths: a penalty for each token alone, or a mean over tokens, has
another optimum there than π_ref exp(r/β), which one-token worlds cannot show.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from oracles.preference_losses import LOSSES
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.records.pairs import Pairs
from tree_world import (
    BANDIT,
    SQUARE,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeJudge,
    TreeRole,
    some_logits,
    some_rewards,
)

BETA = 0.5


def all_pairs(tree: Tree, reward: list[Tensor], flipped: float = 0.0) -> Pairs:
    """Every pair of answers to each prompt, shared as Bradley–Terry says, a share of labels wrong."""
    first, a, b, share = 0, [], [], []
    for p, listed in enumerate(tree.answers):
        for i, j in itertools.combinations(range(len(listed)), 2):
            right = float(torch.sigmoid(reward[p][i] - reward[p][j]))
            a.append(first + i)
            b.append(first + j)
            share.append(right * (1 - flipped) + (1 - right) * flipped)
        first += len(listed)
    return Pairs(tuple(a), tuple(b), tuple(share))


def taught_by_pairs(
    tree: Tree, config: DPOConfig, pairs: Pairs, start: Tensor, steps: int = 600
) -> TreeActor:
    actor, data = TreeActor(tree, start), tree.batch()
    config = config.model_copy(update={"num_epochs": steps, "batch_size": len(pairs), "lr": 0.05})
    ref = TreeRole(tree, start).logprobs(data)
    for _ in dpo(config, actor=actor, data=data, pairs=pairs, logp_ref=ref, seed=0):
        pass
    return actor


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_dpo_ends_at_the_optimum(tree: Tree) -> None:
    start, reward = some_logits(tree, 0), some_rewards(tree, 1)
    actor = taught_by_pairs(tree, DPOConfig(beta=BETA), all_pairs(tree, reward), start)
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 1e-3


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_robust_dpo_sees_through_labels_that_are_flipped(tree: Tree) -> None:
    start, reward = some_logits(tree, 0), some_rewards(tree, 1)
    pairs, wanted = all_pairs(tree, reward, flipped=0.2), tree.optimum(start, reward, BETA)
    robust = DPOConfig(loss="robust", smoothing=0.2, beta=BETA)
    assert tree.distance(taught_by_pairs(tree, robust, pairs, start).logits, wanted) < 1e-3
    plain = taught_by_pairs(tree, DPOConfig(beta=BETA), pairs, start)
    assert tree.distance(plain.logits, wanted) > 0.03


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_ipo_ends_at_its_own_optimum(tree: Tree) -> None:
    start, reward = some_logits(tree, 0), some_rewards(tree, 1)
    pairs = all_pairs(tree, reward)
    actor = taught_by_pairs(tree, DPOConfig(loss="ipo", beta=BETA), pairs, start, steps=1500)
    wins = [torch.sigmoid(r[:, None] - r[None, :]).mean(1) for r in reward]
    assert tree.distance(actor.logits, tree.optimum(start, wins, BETA)) < 1e-3
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) > 0.02


NIGHTLY = [
    pytest.param(x, marks=pytest.mark.nightly)
    for x in ("simpo", "cpo", "hinge", "exo", "nca", "discopop")
]


@pytest.mark.parametrize("loss", ["cdpo", "orpo", *NIGHTLY])
def test_other_losses_end_where_a_float64_minimiser_does(loss: str) -> None:
    """The minimiser sees probabilities of answers alone, and the losses as plain arithmetic."""
    tree, config = TWO_PROMPTS, _config_of(loss)
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    pairs = all_pairs(tree, reward)
    wanted = _minimised(tree, loss, config, pairs, start)
    actor = taught_by_pairs(tree, config, pairs, start, steps=700)
    assert tree.distance(actor.logits, wanted) < 0.01


def _config_of(loss: str) -> DPOConfig:
    smoothing = {"cdpo": 0.1, "exo": 0.05}.get(loss, 0.0)
    beta = {"simpo": 2.0}.get(loss, BETA)
    gamma = {"simpo": 0.4}.get(loss, 0.0)
    return DPOConfig(loss=loss, beta=beta, smoothing=smoothing, gamma=gamma, tau=0.5, alpha=1.0)  # type: ignore[arg-type]


def _minimised(
    tree: Tree, loss: str, config: DPOConfig, pairs: Pairs, start: Tensor
) -> list[Tensor]:
    """The minimum over the tree's policies of the enumerated loss in plain floats, by BFGS with
    finite differences."""
    free = tree.allowed & (tree.allowed.sum(1, keepdim=True) > 1)
    ref = torch.cat(tree.log_answers(start)).tolist()
    lengths = [len(answer) for _, answer in tree.every]
    function = LOSSES[loss]
    keys = {"beta": config.beta, "eps": config.smoothing, "gamma": config.gamma, "delta": 0.0}
    keys |= {"alpha": config.alpha, "tau": config.tau}

    def logits_of(x: np.ndarray) -> Tensor:
        logits = start.clone()
        logits[free] = torch.from_numpy(x)
        return logits

    def value(x: np.ndarray) -> float:
        logp = torch.cat(tree.log_answers(logits_of(x))).tolist()
        total = 0.0
        for a, b, q in zip(pairs.a, pairs.b, pairs.share, strict=True):
            for w, l, share in ((a, b, q), (b, a, 1 - q)):
                total += share * function(
                    x_w=logp[w] - ref[w],
                    x_l=logp[l] - ref[l],
                    n_w=lengths[w],
                    n_l=lengths[l],
                    l_w=logp[w],
                    l_l=logp[l],
                    m_w=logp[w] / lengths[w],
                    m_l=logp[l] / lengths[l],
                    **keys,
                )
        return total / len(pairs)

    found = scipy.optimize.minimize(value, start[free].numpy(), options={"gtol": 1e-7})
    return [x.exp() for x in tree.log_answers(logits_of(found.x))]


# --- critic-free


def improved(loop, config, tree: Tree, start: Tensor, judge: TreeJudge) -> TreeActor:
    actor, reference = TreeActor(tree, start), TreeRole(tree, start)
    for _ in loop(
        config,
        actor=actor,
        judge=judge,
        reference=reference,
        prompts=list(tree.prompts),
        sampling=tree.sampling,
        seed=0,
    ):
        pass
    return actor


def rewarded(tree: Tree, reward: list[Tensor]) -> TreeJudge:
    return TreeJudge(tree, {"score": reward})


@pytest.mark.parametrize("tree", [BANDIT, SQUARE, TWO_PROMPTS])
def test_rloo_ends_at_the_optimum(tree: Tree) -> None:
    """With the KL in the score all answers are worth the same at the optimum: nothing is left to
    learn there, and the noise vanishes."""
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = RLOOConfig(
        num_steps=400, prompts_per_step=len(tree.prompts), answers_per_prompt=64, lr=0.1,
        kl_coef=BETA,
    )  # fmt: skip
    actor = improved(rloo, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.01


def test_grpo_with_the_kl_in_the_score_and_no_std_ends_there_too() -> None:
    tree = SQUARE
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = GRPOConfig(
        num_steps=400, prompts_per_step=1, answers_per_prompt=64, lr=0.1, kl_coef=BETA,
        kl_in="reward", scale="none", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.01


@pytest.mark.nightly
def test_grpo_with_the_kl_in_the_loss_and_no_std_has_the_optimum_of_a_larger_beta() -> None:
    """The mean holds the answer's own reward: β counts G/(G − 1) times."""
    tree, size = BANDIT, 4
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = GRPOConfig(
        num_steps=800, prompts_per_step=128, answers_per_prompt=size, lr=0.1, kl_coef=BETA,
        kl_in="loss", scale="none", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    larger = tree.optimum(start, reward, BETA * size / (size - 1))
    assert tree.distance(actor.logits, larger) < 0.01
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) > 0.02


@pytest.mark.nightly
def test_grpo_with_the_std_has_another_optimum() -> None:
    """π_ref exp(r/(β σ_π)) for large groups, σ_π the spread of r under π itself."""
    tree = BANDIT
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = GRPOConfig(
        num_steps=800, prompts_per_step=8, answers_per_prompt=128, lr=0.1, kl_coef=BETA,
        kl_in="loss", scale="group", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    policy = tree.log_answers(start)[0].exp()
    for _ in range(500):  # self-consistent
        mean = (policy * reward[0]).sum()
        spread = ((policy * (reward[0] - mean) ** 2).sum()).sqrt()
        policy = 0.5 * policy + 0.5 * tree.optimum(start, reward, BETA * float(spread))[0]
    assert tree.distance(actor.logits, [policy]) < 0.02
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) > 0.05


@pytest.mark.nightly
def test_a_kl_of_each_token_in_the_loss_misses_what_follows() -> None:
    """On two levels the penalty in the loss is blind to the next token's: another first token."""
    tree = SQUARE
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    reward = [3 * r for r in reward]
    config = GRPOConfig(
        num_steps=800, prompts_per_step=16, answers_per_prompt=64, lr=0.1, kl_coef=BETA,
        kl_in="loss", scale="none", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    larger = tree.optimum(start, reward, BETA * 64 / 63)
    assert tree.distance(actor.logits, larger) > 0.05


def test_reinforce_pp_with_the_kl_in_the_reward_comes_near_the_optimum() -> None:
    """Whitening over a batch of two prompts shifts them against each other: near, and not at it."""
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = ReinforcePPConfig(
        num_steps=150, prompts_per_step=2, answers_per_prompt=64, lr=0.1, kl_coef=BETA,
        baseline="none",
    )  # fmt: skip
    actor = improved(reinforce_pp, config, tree, start, rewarded(tree, reward))
    wanted = tree.optimum(start, reward, BETA)
    assert tree.distance(actor.logits, wanted) < 0.05
    assert tree.distance(start, wanted) > 0.2


class NoisyJudge(TreeJudge):
    """Scores with Gumbel noise: the better of two is preferred as Bradley–Terry says."""

    def __call__(self, batch):
        found = super().__call__(batch)
        generator = torch.Generator().manual_seed(int(batch.token.sum()) * 7919 + len(batch))
        return {
            name: x - (-torch.rand(len(x), generator=generator, dtype=x.dtype).log()).log()
            for name, x in found.items()
        }


@pytest.mark.nightly
def test_online_dpo_ends_at_the_optimum() -> None:
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = OnlineDPOConfig(
        num_steps=600, prompts_per_step=512, answers_per_prompt=2, lr=0.1, beta=BETA
    )
    actor = improved(online_dpo, config, tree, start, NoisyJudge(tree, {"score": reward}))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.02
