"""The oracles against each other: closed forms, enumerations, minimisers, draws and differences."""

from __future__ import annotations

import math

import pytest
import torch

from oracles import enumerated as e
from oracles import group_formulas as g
from oracles import pair_formulas as pf
from oracles import tabular
from trees import BANDIT, LOPSIDED, SQUARE, TWO_PROMPTS, Tree, some_logits, some_rewards

BETA = 0.3
KEYS = {"beta": 0.4, "eps": 0.1, "gamma": 0.3, "alpha": 0.25, "tau": 0.5}


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Total variation."""
    return float((a - b).abs().sum()) / 2


def five() -> tuple[torch.Tensor, torch.Tensor]:
    """Five one-token answers: logits of the reference [1, 5], and rewards."""
    logits = torch.tensor([[0.2, -0.4, 0.5, 0.0, -0.3]], dtype=torch.float64)
    return logits, torch.tensor([0.1, 0.5, 0.3, 0.9, 0.0], dtype=torch.float64)


# --- gradients


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS, LOPSIDED])
def test_gradients_of_reward_and_divergence_by_differences(tree: Tree) -> None:
    logits, ref, reward = some_logits(tree, 0), some_logits(tree, 1), some_rewards(tree, 2)
    for value in (
        lambda z: e.expected_reward(tree, z, reward),
        lambda z: e.divergence(tree, z, ref),
    ):
        wanted = tabular.gradient(lambda z, v=value: float(v(torch.from_numpy(z))), logits.numpy())
        found = e.slope(tree, value, logits)
        torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-9)


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS, SQUARE])
@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_is_the_policy_gradient_and_the_plain_mean_a_part_of_it(tree, size) -> None:
    logits, reward = some_logits(tree, 0), some_rewards(tree, 1)
    exact = e.slope(tree, lambda z: e.expected_reward(tree, z, reward), logits)
    how = (tree, logits, reward, size)
    found = e.group_gradient(*how, e.vectorised(g.rloo), e.of_constant)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)
    part = e.group_gradient(*how, e.vectorised(g.dr_grpo), e.of_constant)
    torch.testing.assert_close(part, exact * (size - 1) / size, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_where_the_divergence_may_go(tree: Tree) -> None:
    """In the reward it is the divergence of answers. In the loss of each token k2 and k3·ρ are
    alike, and right for one token only; k3 is the other divergence there; k1 does nothing."""
    logits, ref = some_logits(tree, 0), some_logits(tree, 1)
    nothing = [torch.zeros(n, dtype=torch.float64) for n in tree.counts]

    def gradient(kl: str) -> torch.Tensor:
        return e.group_gradient(
            tree, logits, nothing, 2, e.vectorised(g.rloo), e.of_constant, beta=1.0, ref=ref, kl=kl
        )

    exact = -e.slope(tree, lambda z: e.divergence(tree, z, ref), logits)
    torch.testing.assert_close(gradient("reward"), exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient("k3 ratio"), gradient("k2"), rtol=0, atol=1e-12)
    assert float(gradient("k1").abs().max()) < 1e-12
    if tree is BANDIT:
        torch.testing.assert_close(gradient("k2"), exact, rtol=0, atol=1e-12)
        other = -e.slope(
            tree,
            lambda z: (ref.softmax(1) * (ref.log_softmax(1) - z.log_softmax(1))).sum(),
            logits,
        )
        torch.testing.assert_close(gradient("k3"), other, rtol=0, atol=1e-12)
    else:
        assert float((gradient("k2") - exact).abs().max()) > 0.01


def test_draws_agree_with_the_enumeration() -> None:
    """GRPO on 4,000 groups of three: within four standard errors of the expected gradient."""
    tree = TWO_PROMPTS
    logits, reward = some_logits(tree, 0), some_rewards(tree, 1)
    wanted = e.group_gradient(
        tree, logits, reward, 3, e.vectorised(g.grpo, ddof=1, eps=1e-6), e.of_answer
    )
    batch = tree.draw(logits, tree.prompts * 4000, 3, seed=0)
    number = tree.numbers(batch)
    score = torch.cat(reward)[number].view(-1, 3)
    adv = torch.tensor(g.grpo(score.tolist(), ddof=1, eps=1e-6)).view(-1)
    z = logits.clone().requires_grad_(True)
    each = []
    for one in range(len(tree.every)):
        logp = torch.cat([torch.stack([r.sum() for r in rows]) for rows in e.token_logps(tree, z)])
        each.append(torch.autograd.grad(logp[one], z)[0])
    length = torch.tensor([len(a) for _, a in tree.every])[number]
    pull = torch.stack(each)[number] * (adv / length / 3)[:, None, None]
    by_group = pull.view(4000, 6, *z.shape).sum(1)  # both prompts of a round
    error = by_group.std(0) / math.sqrt(4000)
    assert bool(((by_group.mean(0) - wanted).abs() <= 4 * error + 1e-12).all())


# --- points of rest (figures of a world of our own; the laws are those of the methods)


def rest(tree, logits, reward, size, advantage, *, kl, beta=BETA, weight=e.of_constant):
    def field(z):
        return e.group_gradient(
            tree, z, reward, size, advantage, weight, beta=beta, ref=logits, kl=kl
        )

    return e.answer_logps(tree, e.fixed_point(field, logits, rate=2.0))


@pytest.mark.parametrize("tree", [BANDIT, SQUARE, TWO_PROMPTS])
@pytest.mark.parametrize("advantage", [g.rloo, g.dr_grpo])
def test_with_the_divergence_in_the_reward_all_rest_at_the_optimum(tree, advantage) -> None:
    logits, reward = some_logits(tree, 0), some_rewards(tree, 1)
    found = rest(tree, logits, reward, 2, e.vectorised(advantage), kl="reward", beta=1.0)
    for x, ref, r in zip(found, e.answer_logps(tree, logits), reward, strict=True):
        assert apart(x.exp(), e.tempted(ref, r, 1.0)) < 1e-9


@pytest.mark.parametrize(("size", "gap"), [(2, 0.247), (4, 0.119), (6, 0.078)])
def test_the_mean_that_holds_the_own_reward_has_a_larger_beta(size: int, gap: float) -> None:
    logits, reward = five()
    ref = logits[0].log_softmax(0)
    [x] = rest(BANDIT, logits, [reward], size, e.vectorised(g.dr_grpo), kl="k2")
    assert apart(x.exp(), e.tempted(ref, reward, e.larger_beta(BETA, size))) < 1e-9
    assert apart(x.exp(), e.tempted(ref, reward, BETA)) == pytest.approx(gap, abs=1e-3)


def test_the_spread_moves_the_optimum() -> None:
    """σ_π in the place of 1: towards a limit as groups grow, and never the optimum."""
    logits, reward = five()
    ref = logits[0].log_softmax(0)
    limit = e.grpo_limit(ref, reward, 1.0)
    mean = (limit * reward).sum()
    spread = ((limit * (reward - mean) ** 2).sum()).sqrt()
    assert apart(limit, e.tempted(ref, reward, float(spread))) < 1e-12
    gaps = []
    for size in (2, 4, 6):
        advantage = e.vectorised(g.grpo, ddof=0, eps=0.0)
        [x] = rest(BANDIT, logits, [reward], size, advantage, kl="k2", beta=1.0)
        gaps.append(apart(x.exp(), limit))
        assert apart(x.exp(), e.tempted(ref, reward, 1.0)) > 0.1
    assert gaps == sorted(gaps, reverse=True)


def test_with_the_spread_a_small_beta_holds_nothing() -> None:
    """At β 0.3, where the optimum gives the best answer 0.657, large groups pull all mass to it."""
    logits, reward = five()
    ref = logits[0].log_softmax(0)
    with pytest.raises(ValueError, match="all mass goes to the best answer"):
        e.grpo_limit(ref, reward, BETA)
    assert float(e.tempted(ref, reward, BETA)[3]) == pytest.approx(0.657, abs=1e-3)
    mass = []
    for size in (2, 4, 6):
        advantage = e.vectorised(g.grpo, ddof=0, eps=0.0)
        [x] = rest(BANDIT, logits, [reward], size, advantage, kl="k2")
        mass.append(float(x[3].exp()))
    assert mass == sorted(mass)
    assert mass[-1] > 0.99


def test_max_rl_divides_by_the_mean() -> None:
    logits, reward = five()
    ref = logits[0].log_softmax(0)
    limit = e.max_rl_limit(ref, reward, BETA)
    mean = float((limit * reward).sum())
    assert apart(limit, e.tempted(ref, reward, BETA * mean)) < 1e-12
    gaps = []
    for size in (2, 4, 6):
        [x] = rest(BANDIT, logits, [reward], size, e.vectorised(g.max_rl), kl="k2")
        gaps.append(apart(x.exp(), limit))
    assert gaps == sorted(gaps, reverse=True)


def test_a_divergence_of_each_token_misses_the_optimum_of_two_levels() -> None:
    """It weighs the first token by E_π[r] where the optimum has the soft value."""
    logits = torch.zeros(4, 3, dtype=torch.float64)
    reward = [torch.tensor([1.0, 0, 0, 0.4, 0.4, 0.4, 0.3, 0.3, 0], dtype=torch.float64)]
    [ref] = e.answer_logps(SQUARE, logits)
    best = e.tempted(ref, reward[0], BETA)
    [tokens] = rest(SQUARE, logits, reward, 2, e.vectorised(g.rloo), kl="k2")
    [answers] = rest(SQUARE, logits, reward, 2, e.vectorised(g.rloo), kl="reward")
    assert apart(answers.exp(), best) < 1e-10
    assert apart(tokens.exp(), best) == pytest.approx(0.158, abs=1e-3)
    # by hand: below each first token the optimum of that node alone, above it its mean reward
    below = [e.tempted(ref[:3], reward[0][i : i + 3], BETA) for i in (0, 3, 6)]
    means = torch.stack([(q * reward[0][3 * i : 3 * i + 3]).sum() for i, q in enumerate(below)])
    first = e.tempted(torch.full((3,), -math.log(3)), means, BETA)
    wanted = torch.cat([p * q for p, q in zip(first, below, strict=True)])
    assert apart(tokens.exp(), wanted) < 1e-9


def test_weighing_by_length_moves_the_point_of_rest() -> None:
    tree = TWO_PROMPTS
    logits, reward = some_logits(tree, 0), some_rewards(tree, 1)
    advantage = e.vectorised(g.rloo)
    same = rest(tree, logits, reward, 2, advantage, kl="reward", beta=1.0)
    # 1/|o| of an advantage that is 0 for every answer at the optimum is 0 there too …
    short = rest(tree, logits, reward, 2, advantage, kl="reward", beta=1.0, weight=e.of_answer)
    assert max(apart(x.exp(), y.exp()) for x, y in zip(same, short, strict=True)) < 1e-9
    # … while with the KL in the loss it is another balance.
    plain, by_length = (
        rest(tree, logits, reward, 2, advantage, kl="k2", beta=1.0, weight=w)
        for w in (e.of_constant, e.of_answer)
    )
    assert max(apart(x.exp(), y.exp()) for x, y in zip(plain, by_length, strict=True)) > 0.005


# --- minimisers


def prompts_of(tree: Tree, *, flipped: float = 0.0):
    logits, reward = some_logits(tree, 0), some_rewards(tree, 1)
    for p, (ref, r) in enumerate(zip(e.answer_logps(tree, logits), reward, strict=True)):
        length = torch.tensor([float(len(a)) for a in tree.answers[p]], dtype=torch.float64)
        yield ref, r, length, e.bradley_terry(r, flipped=flipped)


@pytest.mark.parametrize("tree", [BANDIT, TWO_PROMPTS])
def test_dpo_rests_at_the_optimum_and_ipo_at_its_own(tree: Tree) -> None:
    for ref, r, length, prefer in prompts_of(tree):
        best = e.tempted(ref, r, BETA)
        found = e.minimiser(e.pairs_loss("dpo", beta=BETA), ref, length, prefer)
        assert apart(found, best) < 1e-8
        found = e.minimiser(e.pairs_loss("ipo", beta=BETA), ref, length, prefer)
        assert apart(found, e.ipo_optimum(ref, prefer, BETA)) < 1e-9


def test_flipped_labels_deceive_dpo_and_not_the_robust_loss() -> None:
    for ref, r, length, prefer in prompts_of(BANDIT, flipped=0.2):
        best = e.tempted(ref, r, BETA)
        robust = e.minimiser(e.pairs_loss("robust", beta=BETA, eps=0.2), ref, length, prefer)
        assert apart(robust, best) < 1e-8
        plain = e.minimiser(e.pairs_loss("dpo", beta=BETA), ref, length, prefer)
        assert apart(plain, best) > 0.04


def test_simpo_of_one_token_forgets_the_reference() -> None:
    for ref, r, length, prefer in prompts_of(BANDIT):
        loss = e.pairs_loss("simpo", beta=BETA, gamma=0.0)
        found = e.minimiser(loss, ref, length, prefer)
        assert apart(found, (r / BETA).softmax(0)) < 1e-8


def test_bco_is_right_for_one_level_only() -> None:
    """u − δ = logit of an answer's share of wins, for the δ that normalises π: solved for here."""
    for ref, _, length, prefer in prompts_of(BANDIT):
        num = len(ref)
        wins = (prefer.sum(1) - 0.5) / (num - 1)
        logit = torch.log(wins / (1 - wins))
        right = -float(torch.logsumexp(ref + logit / BETA, 0)) * BETA
        found = e.minimiser(e.pairs_loss("bco", beta=BETA, delta=right), ref, length, prefer)
        assert apart(found, e.tempted(ref, logit, BETA)) < 1e-8
        at_zero = e.minimiser(e.pairs_loss("bco", beta=BETA, delta=0.0), ref, length, prefer)
        assert apart(at_zero, e.tempted(ref, logit, BETA)) > 0.005


def test_kto_shares_by_how_often_an_answer_is_there_and_is_good() -> None:
    """Against the minimum of the enumerated loss over the answers that are good more than half the
    time; the loss falls further as any of the others goes to 0."""
    ref = torch.tensor([0.0, 1.0, 0.0, 0.5, 0.0], dtype=torch.float64).log_softmax(0)
    quality = torch.tensor([0.9, 0.7, 0.6, 0.3, 0.1], dtype=torch.float64)
    for beta in (0.1, 1.0):
        for share in (torch.full((5,), 0.2, dtype=torch.float64), ref.exp()):
            price = share * (1 - 2 * quality)
            found = e.minimiser(
                lambda w, p=price[:3], b=beta: (p * pf.sigma(b * w.ratio)).sum(),
                ref[:3], torch.ones(3).double(), torch.ones(3, 3).double(),
            )  # fmt: skip
            limit = e.kto_limit(ref, share, quality, beta)
            assert apart(limit[:3], found) < 1e-9
            assert limit[3:].tolist() == [0, 0]
            if beta == 0.1:
                wanted = share[:3] * (2 * quality[:3] - 1)
                assert apart(limit[:3], wanted / wanted.sum()) < 0.003


def test_the_hinges_minimum_is_below_all_around_it() -> None:
    loss = e.pairs_loss("hinge", beta=BETA)
    for ref, _, length, prefer in prompts_of(TWO_PROMPTS):
        found = e.hinge_minimiser(ref, prefer, beta=BETA).log()
        least = float(loss(e.World(found, ref, length, prefer)))
        generator = torch.Generator().manual_seed(0)
        for _ in range(200):
            step = 0.3 * torch.randn(len(ref), generator=generator, dtype=torch.float64)
            near = (found + step).log_softmax(0)
            assert float(loss(e.World(near, ref, length, prefer))) > least - 1e-12


@pytest.mark.parametrize("name", ["cdpo", "simpo", "orpo", "cpo", "nca", "exo", "discopop"])
def test_a_minimum_is_below_all_around_it(name: str) -> None:
    loss = e.pairs_loss(name, **KEYS)
    for ref, _, length, prefer in prompts_of(TWO_PROMPTS):
        found = e.minimiser(loss, ref, length, prefer).log()
        least = float(loss(e.World(found, ref, length, prefer)))
        generator = torch.Generator().manual_seed(0)
        for _ in range(50):
            step = 0.1 * torch.randn(len(ref), generator=generator, dtype=torch.float64)
            near = (found + step).log_softmax(0)
            assert float(loss(e.World(near, ref, length, prefer))) > least
