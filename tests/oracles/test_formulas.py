"""Formulas of preferences and of groups by hand, by differences, and where they meet."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from oracles import group_formulas as g
from oracles import pair_formulas as pf
from oracles import tabular
from trees import BANDIT, some_logits

KEYS = {"beta": 0.4, "eps": 0.1, "gamma": 0.3, "alpha": 0.25, "tau": 0.5, "delta": 0.2}


def some_sides(num: int = 6) -> tuple[pf.Side, pf.Side]:
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(2):
        length = torch.tensor(rng.integers(1, 6, num).astype(float))
        logp = -length * torch.tensor(rng.uniform(0.1, 2, num))
        sides.append(pf.Side(logp, logp + torch.tensor(rng.normal(size=num)), length))
    return sides[0], sides[1]


@pytest.mark.parametrize("name", sorted(pf.FORMULAS))
def test_slopes_of_pair_formulas_by_differences(name: str) -> None:
    w, l = some_sides()

    def value(x: np.ndarray) -> float:
        won, lost = torch.from_numpy(x)
        return float(pf.formula(name, w._replace(logp=won), l._replace(logp=lost), **KEYS).sum())

    at = torch.stack([w.logp, l.logp]).requires_grad_(True)
    pf.formula(name, w._replace(logp=at[0]), l._replace(logp=at[1]), **KEYS).sum().backward()
    wanted = tabular.gradient(value, at.detach().numpy())
    np.testing.assert_allclose(at.grad.numpy(), wanted, rtol=1e-6, atol=1e-8)


def test_pair_formulas_where_they_meet() -> None:
    w, l = some_sides()
    dpo = pf.dpo(w, l, beta=0.4)
    assert torch.allclose(pf.cdpo(w, l, beta=0.4, eps=0.0), dpo)
    assert torch.allclose(pf.robust(w, l, beta=0.4, eps=0.0), dpo)
    flipped = 0.8 * pf.robust(w, l, beta=0.4, eps=0.2) + 0.2 * pf.robust(l, w, beta=0.4, eps=0.2)
    assert torch.allclose(flipped, dpo)  # unbiased under flips
    one = [s._replace(length=torch.ones_like(s.length)) for s in (w, l)]
    assert torch.allclose(pf.dpo_mean(*one, beta=0.4), dpo)
    assert torch.allclose(pf.ipo_mean(*one, beta=0.4), pf.ipo(w, l, beta=0.4))
    simpo = pf.simpo(w, l, beta=0.4, gamma=0.3)
    almost = pf.alpha_po(w, l, beta=0.4, gamma=0.3, alpha=1e-7)
    assert torch.allclose(almost, simpo, atol=1e-6)
    assert float((-dpo).exp().add((-pf.dpo(l, w, beta=0.4)).exp()).sub(1).abs().max()) < 1e-12
    # one pair is its own sorted batch
    single = [pf.Side(*(x[:1] for x in s)) for s in (w, l)]
    for aot in (pf.aot_paired, pf.aot_unpaired):
        assert torch.allclose(aot(*single, beta=0.4), pf.dpo(*single, beta=0.4))
    # KL of a choice from its label is 0 where they agree: h = logit(1 − ε)/β
    right = pf.Side(torch.tensor([math.log(9) / 0.4]).double(), *[torch.zeros(1).double()] * 2)
    zero = pf.Side(*[torch.zeros(1).double()] * 3)
    assert abs(float(pf.exo(right, zero, beta=0.4, eps=0.1))) < 1e-12


def test_kto_by_hand() -> None:
    """z = β·max(0, mean); at z = 0 and ratio 0 a good answer costs λ/2, and so does a bad one."""
    ratio = torch.tensor([0.0, 0.0], dtype=torch.float64)
    good = torch.tensor([True, False])
    found = pf.kto(ratio, good, beta=0.1, level=0.0, good=1.0, bad=1.5)
    assert found.tolist() == [0.5, 0.75]
    assert float(pf.kto_level(torch.tensor([-3.0, 1.0]), beta=0.1)) == 0
    assert float(pf.kto_level(torch.tensor([3.0, 1.0]), beta=0.1)) == pytest.approx(0.2)


def test_advantages_by_hand() -> None:
    """0, 0, 1, 3: mean 1, squares 1 + 1 + 0 + 4 = 6."""
    group = [[0.0, 0.0, 1.0, 3.0]]
    assert g.grpo(group, ddof=1, eps=0.0)[0] == pytest.approx(
        [x / math.sqrt(2) for x in (-1, -1, 0, 2)]
    )
    assert g.grpo(group, ddof=0, eps=0.0)[0] == pytest.approx(
        [x / math.sqrt(1.5) for x in (-1, -1, 0, 2)]
    )
    assert g.dr_grpo(group) == [[-1, -1, 0, 2]]
    assert g.rloo(group)[0] == pytest.approx([-4 / 3, -4 / 3, 0, 8 / 3])
    assert g.max_rl(group) == [[-1, -1, 0, 2]]
    assert g.opo(group, [[1, 1, 1, 3]])[0] == pytest.approx([x - 10 / 6 for x in group[0]])
    # whitened over the two groups' six numbers, after each is normalised apart
    whole = g.gdpo([[[0.0, 1.0], [0.0, 0.0], [5.0, 1.0]]], [1.0], ddof=0, eps=0.0)
    assert np.allclose(whole, np.array([[-1, 1], [0, 0], [1, -1]]) / math.sqrt(4 / 6))
    # returns of score 1 over KLs 1, 2 at β = 0.1: 0.7 and 0.8; of score 0 over 0: 0
    white = g.whitened_returns([1.0, 0.0], [[1.0, 2.0], [0.0]], beta=0.1)
    mean = 0.5
    spread = math.sqrt((0.04 + 0.09 + 0.25) / 3)
    assert white[0] == pytest.approx([0.2 / spread, 0.3 / spread])
    assert white[1] == pytest.approx([-mean / spread])


def test_surrogates_at_the_old_policy_have_one_slope() -> None:
    """−A at ρ = 1, whichever gate; of the means of an answer, its share of it."""
    old = torch.tensor([-1.0, -0.3, -2.0], dtype=torch.float64)
    for a in (0.7, -1.2):
        for name, keys in (
            ("clip", {"low": 0.2, "high": 0.3}),
            ("capped", {"low": 0.2, "high": 0.3, "cap": 4.0}),
            ("gspo", {"low": 3e-4, "high": 4e-4}),
            ("gmpo", {"low": 0.4, "high": 0.4}),
            ("cispo", {"cap": 5.0}),
            ("sapo", {"tau_up": 1.0, "tau_down": 1.05}),
        ):
            logp = old.clone().requires_grad_(True)
            (getattr(g, name)(logp, old, a, **keys).sum() / 3).backward()
            assert logp.grad.tolist() == pytest.approx([-a / 3] * 3, rel=1e-12), name
        logp = old.clone().requires_grad_(True)
        (g.sequence(logp, old, a, low=0.2, high=0.2).sum() / 3).backward()
        assert logp.grad.tolist() == pytest.approx([-a] * 3, rel=1e-12)


def test_clipping_by_hand() -> None:
    """Ratios 1.5, 1.1, 0.5 and 0.5 with A 2, 1, 1, −1 and ε 0.2: −2.4, −1.1, −0.5, 0.8."""
    old = torch.zeros(1, dtype=torch.float64)
    for ratio, a, loss, slope in ((1.5, 2.0, -2.4, 0), (1.1, 1, -1.1, -1.1), (0.5, 1, -0.5, -0.5),
                                  (0.5, -1, 0.8, 0), (1.5, -1, 1.5, 1.5)):  # fmt: skip
        logp = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
        found = g.clip(logp, old, a, low=0.2, high=0.2)
        found.sum().backward()
        assert float(found.detach()) == pytest.approx(loss)
        assert float(logp.grad) == pytest.approx(slope)
    far = torch.tensor([math.log(9.0)], dtype=torch.float64)
    assert float(g.capped(far, old, -1.0, low=0.2, high=0.2, cap=4.0)) == pytest.approx(4)


def test_denominators_by_hand() -> None:
    rows = [torch.ones(1), torch.ones(3) * 2, torch.ones(0)]
    assert float(g.mean_of_answers(rows)) == pytest.approx((1 + 2 + 0) / 3)
    assert float(g.mean_of_tokens(rows)) == pytest.approx(7 / 4)
    assert float(g.over_constant(rows, longest=4)) == pytest.approx(7 / 12)
    assert float(g.mean_of_prompts([rows[:1], rows[1:]])) == pytest.approx((1 + 2) / 2)


def test_divergences_of_a_token_in_expectation() -> None:
    p, q = (some_logits(BANDIT, i)[0].log_softmax(0) for i in (0, 1))
    exact = float((p.exp() * (p - q)).sum())
    assert float((p.exp() * g.k1(p, q)).sum()) == pytest.approx(exact, rel=1e-12)
    assert float((p.exp() * g.k3(p, q)).sum()) == pytest.approx(exact, rel=1e-12)
    assert abs(float((p.exp() * g.k2(p, q)).sum()) - exact) > 0.01


def test_several_answers() -> None:
    for n, right, k in itertools.product((4, 7), (0, 1, 3), (1, 2, 4)):
        wanted = 1 - math.comb(n - right, k) / math.comb(n, k)
        assert g.pass_at_k(n, right, k) == pytest.approx(wanted)
    prob = np.array([0.1, 0.2, 0.3, 0.4])
    for n in (1, 2, 4, 8):
        best = g.best_of_n(prob, np.array([3.0, 1.0, 2.0, 0.0]), n)
        assert best.sum() == pytest.approx(1)
        kl = float((best * np.log(best / prob)).sum())
        assert kl <= g.best_of_n_bound(n) + 1e-12
    fine = np.full(2000, 1 / 2000)
    best = g.best_of_n(fine, np.arange(2000.0), 4)
    assert float((best * np.log(best / fine)).sum()) == pytest.approx(
        g.best_of_n_bound(4), abs=2e-3
    )
