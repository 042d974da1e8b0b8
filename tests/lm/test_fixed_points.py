"""Where algorithms come to rest on worlds whose every answer can be listed.

Trees with unequal branches and lengths: a penalty for each token alone, or a mean over tokens, has
another optimum there than π_ref exp(r/β), which one-token worlds cannot show. The loops are the real
ones; where they should end is enumerated (`oracles.enumerated`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from oracles import enumerated as e
from oracles import group_formulas as g
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.kto import KTOConfig, kto
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.records.pairs import Pairs
from tree_world import (
    BANDIT,
    SQUARE,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    TreeReward,
    some_logits,
    some_rewards,
)

BETA = 0.5


def all_pairs(tree: Tree, reward: Sequence[Tensor], flipped: float = 0.0) -> Pairs:
    """Every pair of answers to each prompt, shared as Bradley–Terry says, a share of labels wrong."""
    first, a, b, share = 0, [], [], []
    for count, r in zip(tree.counts, reward, strict=True):
        prefer = e.bradley_terry(r, flipped=flipped)
        for i, j in itertools.combinations(range(count), 2):
            a.append(first + i)
            b.append(first + j)
            share.append(float(prefer[i, j]))
        first += count
    return Pairs(tuple(a), tuple(b), tuple(share))


def taught_by_pairs(
    tree: Tree, config: DPOConfig, pairs: Pairs, start: Tensor, steps: int = 600
) -> TreeActor:
    """All pairs in each step."""
    actor, data = TreeActor(tree, start), tree.batch()
    config = config.model_copy(
        update={"num_epochs": steps, "batch_size": len(pairs), "lr": 0.05, "save_every": 10_000}
    )
    ref = TreeReference(tree, start).logprobs(data)
    for _ in dpo(config, actor=actor, data=data, pairs=pairs, logp_ref=ref, seed=0):
        pass
    return actor


def worlds(tree: Tree, start: Tensor, reward: Sequence[Tensor], *, flipped: float = 0.0):
    """Of each prompt: log π_ref of its answers, their lengths, and who is preferred."""
    logs = e.answer_logps(tree, start)
    for ref, listed, r in zip(logs, tree.answers, reward, strict=True):
        length = torch.tensor([float(len(answer)) for answer in listed], dtype=torch.float64)
        yield ref, length, e.bradley_terry(r, flipped=flipped)


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
    assert tree.distance(plain.logits, wanted) > 0.04


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_ipo_ends_at_its_own_optimum(tree: Tree) -> None:
    start, reward = some_logits(tree, 0), some_rewards(tree, 1)
    pairs = all_pairs(tree, reward)
    actor = taught_by_pairs(tree, DPOConfig(loss="ipo", beta=BETA), pairs, start, steps=800)
    wanted = [e.ipo_optimum(ref, prefer, BETA) for ref, _, prefer in worlds(tree, start, reward)]
    assert tree.distance(actor.logits, wanted) < 1e-3
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) > 0.02


def test_simpo_of_one_token_ends_where_no_reference_is() -> None:
    start, reward = some_logits(BANDIT, 0), some_rewards(BANDIT, 1)
    config = DPOConfig(loss="simpo", beta=BETA, gamma=0.0)
    actor = taught_by_pairs(BANDIT, config, all_pairs(BANDIT, reward), start)
    assert BANDIT.distance(actor.logits, [(r / BETA).softmax(0) for r in reward]) < 1e-3


MINIMISED = {
    "cdpo": {"beta": BETA, "eps": 0.1},
    "ipo_mean": {"beta": BETA},
    "dpo_mean": {"beta": BETA},
    "exo": {"beta": BETA, "eps": 0.05},
    "nca": {"beta": BETA},
    "sppo": {"beta": BETA},
    "discopop": {"beta": BETA, "tau": 0.5},
    "simpo": {"beta": 2.0, "gamma": 0.4},
    "alpha_po": {"beta": 2.0, "gamma": 0.4, "alpha": 0.25},
    "orpo": {"beta": BETA},
    "cpo": {"beta": BETA, "alpha": 1.0},
}
"""Losses without a closed form. APO's two have their minimum at no policy: the winner takes all."""


@pytest.mark.parametrize("loss", MINIMISED)
def test_other_losses_end_where_they_are_least(loss: str) -> None:
    """The minimiser has a logit for each answer, whatever tree it hangs on."""
    tree, keys = TWO_PROMPTS, MINIMISED[loss]
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = DPOConfig(loss=loss, **{"smoothing" if k == "eps" else k: x for k, x in keys.items()})  # type: ignore[arg-type]
    wanted = [e.minimiser(e.pairs_loss(loss, **keys), *w) for w in worlds(tree, start, reward)]
    actor = taught_by_pairs(tree, config, all_pairs(tree, reward), start, steps=800)
    assert tree.distance(actor.logits, wanted) < 2e-3


def test_the_hinge_ends_at_a_corner() -> None:
    """Adam crosses a corner to and fro, by less and less as its rate falls."""
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    wanted = [
        e.hinge_minimiser(ref, prefer, beta=2.0) for ref, _, prefer in worlds(tree, start, reward)
    ]
    config = DPOConfig(loss="hinge", beta=2.0)
    actor = taught_by_pairs(tree, config, all_pairs(tree, reward), start, steps=1500)
    assert tree.distance(actor.logits, wanted) < 0.01


def test_bco_ends_where_its_own_level_puts_it() -> None:
    """δ is the mean reward where the policy ends: solved for in turn with the policy."""
    tree = BANDIT
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    [(ref, length, prefer)] = worlds(tree, start, reward)
    level = 0.0
    for _ in range(60):
        policy = e.minimiser(e.pairs_loss("bco", beta=BETA, delta=level), ref, length, prefer)
        level = float(BETA * (policy.log() - ref).mean())
    config = DPOConfig(loss="bco", beta=BETA)
    actor = taught_by_pairs(tree, config, all_pairs(tree, reward), start, steps=1500)
    assert tree.distance(actor.logits, [policy]) < 0.01


def test_kto_shares_by_how_often_an_answer_is_good() -> None:
    """Five answers of quality q, equally often in the data: those below ½ vanish, and the others
    come near 2q − 1, wherever they began (`kto_limit`)."""
    tree, quality = BANDIT, (0.9, 0.7, 0.6, 0.3, 0.1)
    start = torch.tensor([[0.0, 1.0, 0.0, 0.5, 0.0]], dtype=torch.float64)
    good = [k < 10 * q for q in quality for k in range(10)]
    data = tree.batch([(0, (a,)) for a in range(5) for _ in range(10)])
    reference = TreeReference(tree, start)
    actor = TreeActor(tree, start)
    config = KTOConfig(num_epochs=400, batch_size=50, lr=0.1, beta=BETA, save_every=10_000)
    events = kto(
        config,
        actor=actor,
        data=data,
        is_good=torch.tensor(good),
        logp_ref=reference.logprobs(data),
        seed=0,
    )
    for _ in events:
        pass
    even = torch.full((5,), 0.2, dtype=torch.float64)
    q = torch.tensor(quality, dtype=torch.float64)
    limit = e.kto_limit(start[0].log_softmax(0), even, q, BETA)
    assert tree.distance(actor.logits, [limit]) < 0.02


# --- critic-free


def improved(loop, config, tree: Tree, start: Tensor, judge: TreeJudge) -> TreeActor:
    actor, reference = TreeActor(tree, start), TreeReference(tree, start)
    for _ in loop(
        config.model_copy(update={"save_every": 10_000}),
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


def test_rloo_of_two_answers_in_several_updates_ends_there_too() -> None:
    """Groups of two suffice, and clipped steps on one rollout do no harm."""
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = RLOOConfig(
        num_steps=250, prompts_per_step=64, answers_per_prompt=2, lr=0.05, kl_coef=BETA,
        num_epochs=2, num_minibatches=2,
    )  # fmt: skip
    actor = improved(rloo, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.01


@pytest.mark.parametrize("tree", [SQUARE, TWO_PROMPTS])
def test_grpo_with_the_kl_in_the_score_and_no_std_ends_there_too(tree: Tree) -> None:
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = GRPOConfig(
        num_steps=400, prompts_per_step=len(tree.prompts), answers_per_prompt=64, lr=0.1,
        kl_coef=BETA, kl_in="reward", scale="none", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.01


@pytest.mark.parametrize("tree", [SQUARE, TWO_PROMPTS])
def test_reinforce_pp_with_the_kl_in_the_reward_comes_near_the_optimum(tree: Tree) -> None:
    """Whitening scales the gradient and moves it by a constant baseline: its zero stays where it
    is, but the noise does not vanish there."""
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    config = ReinforcePPConfig(
        num_steps=300, prompts_per_step=len(tree.prompts), answers_per_prompt=256, lr=0.05,
        kl_coef=BETA, baseline="none",
    )  # fmt: skip
    actor = improved(reinforce_pp, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.02


@pytest.mark.parametrize("tree", [SQUARE, TWO_PROMPTS])
def test_ppo_comes_near_the_optimum(tree: Tree) -> None:
    """Its advantages are whitened too."""
    start, reward = some_logits(tree, 0, 0.4), some_rewards(tree, 1)
    actor = TreeActor(tree, start)
    num = len(tree.prompts)
    config = PPOConfig(
        num_steps=250, prompts_per_step=num, answers_per_prompt=256 // num, num_epochs=2,
        num_minibatches=1, lr=0.05, critic_lr=0.2, lam=1.0, kl_coef=BETA, kl_target=None,
        value_clip=10.0, max_policy_kl=1.0, missing_eos_penalty=0.0, save_every=10_000,
    )  # fmt: skip
    for _ in ppo(
        config,
        actor=actor,
        critic=TreeCritic(tree),
        reference=TreeReference(tree, start),
        reward=TreeReward(tree, reward),
        prompts=list(tree.prompts),
        sampling=tree.sampling,
        seed=0,
    ):
        pass
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.02


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
    larger = tree.optimum(start, reward, e.larger_beta(BETA, size))
    assert tree.distance(actor.logits, larger) < 0.01
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) > 0.02


@pytest.mark.nightly
def test_grpo_with_the_std_has_another_optimum() -> None:
    """π_ref exp(r/(β σ_π)) for large groups, σ_π the spread of r under π itself."""
    tree, beta = BANDIT, 2.0
    start = some_logits(tree, 0, 0.4)
    reward = [torch.tensor([0.1, 0.5, 0.3, 0.9, 0.0], dtype=torch.float64)]
    config = GRPOConfig(
        num_steps=800, prompts_per_step=8, answers_per_prompt=128, lr=0.1, kl_coef=beta,
        kl_in="loss", scale="group", denominator="constant",
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    limit = e.grpo_limit(e.answer_logps(tree, start)[0], reward[0], beta)
    assert tree.distance(actor.logits, [limit]) < 0.02
    assert tree.distance(actor.logits, tree.optimum(start, reward, beta)) > 0.05


@pytest.mark.nightly
@pytest.mark.parametrize("denominator", ["constant", "answer"])
def test_grpo_with_the_kl_of_each_token_in_the_loss_ends_where_its_gradient_does(
    denominator: str,
) -> None:
    """The penalty is blind to what follows a token, and 1/|o| weighs it: two points of rest, found
    by enumeration of all groups of two, and neither is the optimum."""
    tree = TWO_PROMPTS
    start, reward = some_logits(tree, 0, 0.4), [2 * r for r in some_rewards(tree, 1)]
    weight = e.of_answer if denominator == "answer" else e.of_constant

    def field(z: Tensor) -> Tensor:
        return e.group_gradient(
            tree, z, reward, 2, e.vectorised(g.dr_grpo), weight, beta=BETA, ref=start, kl="k2"
        )

    wanted = [x.exp() for x in e.answer_logps(tree, e.fixed_point(field, start))]
    config = GRPOConfig(
        num_steps=800, prompts_per_step=512, answers_per_prompt=2, lr=0.1, kl_coef=BETA,
        kl_in="loss", scale="none", denominator=denominator,
    )  # fmt: skip
    actor = improved(grpo, config, tree, start, rewarded(tree, reward))
    assert tree.distance(actor.logits, wanted) < 0.01
    assert tree.distance(actor.logits, tree.optimum(start, reward, 2 * BETA)) > 0.02


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
        num_steps=1000, prompts_per_step=512, answers_per_prompt=2, lr=0.04, beta=BETA
    )
    actor = improved(online_dpo, config, tree, start, NoisyJudge(tree, {"score": reward}))
    assert tree.distance(actor.logits, tree.optimum(start, reward, BETA)) < 0.02
