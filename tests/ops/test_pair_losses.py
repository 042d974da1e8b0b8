"""Every loss of pairs and labels: values against formulas of their own, gradients against finite
differences."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from oracles import pair_formulas as pf
from plaudit.ops import LABEL_LOSSES, PAIR_LOSSES
from plaudit.ops.pair_losses import Answer, PairKeys

KEYS = PairKeys(beta=0.3, smoothing=0.1, gamma=0.4, alpha=0.25, tau=0.5, delta=0.2)


def answers(dtype=torch.float64, num: int = 40) -> tuple[Answer, Answer]:
    generator = torch.Generator().manual_seed(0)
    sides = []
    for _ in range(2):
        length = torch.randint(1, 9, (num,), generator=generator).to(dtype)
        logp = -length * torch.rand(num, generator=generator, dtype=torch.float64).to(dtype) - 0.05
        ref = logp + torch.randn(num, generator=generator, dtype=torch.float64).to(dtype)
        sides.append(Answer(logp, ref, length))
    return sides[0], sides[1]


def expected(name: str, won: Answer, lost: Answer) -> torch.Tensor:
    sides = [pf.Side(s.logp.double(), s.ref.double(), s.length.double()) for s in (won, lost)]
    return pf.formula(
        name, *sides, beta=KEYS.beta, eps=KEYS.smoothing, gamma=KEYS.gamma, alpha=KEYS.alpha,
        tau=KEYS.tau, delta=KEYS.delta,
    )  # fmt: skip


def test_the_table_and_the_oracle_have_the_same_losses() -> None:
    assert set(PAIR_LOSSES) == set(pf.FORMULAS)


@pytest.mark.parametrize("name", sorted(PAIR_LOSSES))
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_value(name: str, dtype: torch.dtype, close: float) -> None:
    won, lost = answers(dtype)
    margin = torch.zeros_like(won.logp)
    found = PAIR_LOSSES[name].function(won, lost, KEYS, margin).double()
    assert torch.allclose(found, expected(name, won, lost), rtol=close, atol=close)


@pytest.mark.parametrize("name", sorted(PAIR_LOSSES))
def test_gradient(name: str) -> None:
    won, lost = answers(num=6)

    def loss(logp_w: torch.Tensor, logp_l: torch.Tensor) -> torch.Tensor:
        sides = replace(won, logp=logp_w), replace(lost, logp=logp_l)
        return PAIR_LOSSES[name].function(*sides, KEYS, torch.zeros_like(logp_w)).sum()

    inputs = [side.logp.clone().requires_grad_(True) for side in (won, lost)]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", [n for n, kind in PAIR_LOSSES.items() if not kind.has_reference])
def test_losses_without_a_reference_do_not_read_it(name: str) -> None:
    won, lost = answers(num=6)
    other = [replace(side, ref=side.ref.flip(0) + 1) for side in (won, lost)]
    margin = torch.zeros_like(won.logp)
    function = PAIR_LOSSES[name].function
    assert torch.equal(function(won, lost, KEYS, margin), function(*other, KEYS, margin))


def test_dpo_of_a_pair_and_of_its_swap() -> None:
    won, lost = answers()
    margin = torch.zeros_like(won.logp)
    dpo = PAIR_LOSSES["dpo"].function
    both = (-dpo(won, lost, KEYS, margin)).exp() + (-dpo(lost, won, KEYS, margin)).exp()
    assert torch.allclose(both, torch.ones_like(both), rtol=1e-12)


def test_a_margin_asks_for_a_lead_of_so_much() -> None:
    won, lost = answers()
    h = KEYS.beta * (won.log_ratio - lost.log_ratio)
    found = PAIR_LOSSES["dpo"].function(won, lost, KEYS, h)
    assert torch.allclose(found, torch.full_like(found, math.log(2)), rtol=1e-12)


def test_exo_without_smoothing_would_be_infinite() -> None:
    won, lost = answers(num=3)
    found = PAIR_LOSSES["exo"].function(won, lost, PairKeys(smoothing=0.0), torch.zeros(3))
    assert found.isinf().all()


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
@pytest.mark.parametrize(
    "name", ["dpo", "cdpo", "robust", "exo", "nca", "bco", "apo_zero", "simpo"]
)
def test_finite_far_from_the_reference(name: str, extreme: float) -> None:
    far = torch.tensor([extreme], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    won, lost = Answer(far, zero, one), Answer(zero, zero, one)
    loss = PAIR_LOSSES[name].function(won, lost, KEYS, zero).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_orpo_where_an_answer_is_certain() -> None:
    sure = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    other = torch.tensor([-3.0], dtype=torch.float64)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    won, lost = Answer(sure, zero, one), Answer(other, zero, one)
    loss = PAIR_LOSSES["orpo"].function(won, lost, KEYS, zero).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(LABEL_LOSSES))
def test_label_losses(name: str) -> None:
    ratio = torch.tensor([1.5, -0.5, 2.0, 0.1], dtype=torch.float64)
    good = torch.tensor([True, True, False, False])
    found = LABEL_LOSSES[name](ratio, good, beta=0.4, level=0.3, good_weight=1.2, bad_weight=0.7)
    formula = {"kto": pf.kto, "bco": pf.bco_labels}[name]
    wanted = formula(ratio, good, beta=0.4, level=0.3, good=1.2, bad=0.7)
    assert torch.allclose(found, wanted, rtol=1e-12)


def test_kto_pushes_each_kind_its_way_and_costs_half_at_the_level() -> None:
    ratio = torch.full((2,), 0.75, dtype=torch.float64, requires_grad=True)
    good = torch.tensor([True, False])
    loss = LABEL_LOSSES["kto"](ratio, good, beta=0.4, level=0.3)
    assert loss.tolist() == pytest.approx([0.5, 0.5], rel=1e-12)
    loss.sum().backward()
    assert ratio.grad is not None
    assert ratio.grad[0] < 0 < ratio.grad[1]
