"""PPO's losses as values, by hand: numbers, gradients, and nothing that a split could change."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.lm.ppo import ClippedPolicy, ClippedValue
from plaudit.records.losses import Part, cut
from plaudit.records.pairs import Pairs
from plaudit.rewards.model import BradleyTerry

LN = math.log


def part_of(statistics, fields, *, logp_old=None, chosen=None, denominator: float = 4.0) -> Part:
    some = next(iter(statistics.values()))
    chosen = torch.ones(some.shape, dtype=torch.bool) if chosen is None else chosen
    old = torch.zeros_like(some) if logp_old is None else logp_old
    return Part(chosen, old, denominator, statistics, fields)


def test_the_clipped_policy_by_hand() -> None:
    """Ratios 1.5, 1.1, 0.5, 0.5 with advantages 2, 1, 1, −1 and ε = 0.2:
    −min(3, 2.4) = −2.4; −1.1; −min(0.5, 0.8) = −0.5; −min(−0.5, −0.8) = 0.8; sum −3.2, over 4 −0.8.
    Only where the smaller term is not the clipped one is there a slope: −ρA/4 = −0.275, −0.125."""
    logp = torch.tensor([[LN(1.5), LN(1.1), LN(0.5), LN(0.5)]], dtype=torch.float64)
    logp.requires_grad_(True)
    adv = torch.tensor([[2.0, 1.0, 1.0, -1.0]], dtype=torch.float64)
    entropy = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    part = part_of({"logp": logp, "entropy": entropy}, {"adv": adv})
    loss, numbers = ClippedPolicy(0.2)(part)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(-0.8, rel=1e-12)
    assert logp.grad[0].tolist() == pytest.approx([0, -0.275, -0.125, 0], abs=1e-12)
    assert float(numbers["loss/policy_avg"]) == pytest.approx(-3.2, rel=1e-12)
    assert float(numbers["policy/clipfrac_avg"]) == 3
    assert float(numbers["policy/entropy_avg"]) == 10
    assert float(numbers["val/ratio"]) == pytest.approx(3.6, rel=1e-12)
    kl = sum(0.5 * LN(r) ** 2 for r in (1.5, 1.1, 0.5, 0.5))
    assert float(numbers["policy/approxkl_avg"]) == pytest.approx(kl, rel=1e-12)


def test_the_clipped_value_by_hand() -> None:
    """Old 0, ε 0.2: value 0.1 to return 1 costs ½·0.81; value 0.5 to 1 costs ½·max(0.25, 0.64)."""
    value = torch.tensor([[0.1, 0.5]], dtype=torch.float64)
    old, ret = torch.zeros_like(value), torch.ones_like(value)
    part = part_of({"value": value}, {"value_old": old, "ret": ret}, denominator=2.0)
    loss, numbers = ClippedValue(0.2)(part)
    assert float(loss) == pytest.approx((0.405 + 0.32) / 2, rel=1e-12)
    assert float(numbers["val/clipfrac_avg"]) == 1


def test_comparisons_by_hand() -> None:
    """−log σ(1) for a vote for a, and ½(−log σ(1) − log σ(−1)) for a tie, over 2; the centring term
    is in the loss and not in the number."""
    scores = torch.tensor([1.0, 0.0], dtype=torch.float64)
    pairs = Pairs((0, 0), (1, 1), (1.0, 0.5))
    part = part_of({"score": scores}, {"pairs": pairs}, denominator=2.0)
    loss, numbers = BradleyTerry(0.1)(part)
    win, lose = LN(1 + math.exp(-1)), LN(1 + math.exp(1))
    plain = (win + (win + lose) / 2) / 2
    assert float(numbers["loss"]) == pytest.approx(plain, rel=1e-12)
    assert float(loss) == pytest.approx(plain + 0.1 * 1.0, rel=1e-12)
    assert (float(numbers["agreed"]), float(numbers["decided"])) == (1, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_split_by_rows_changes_neither_loss_nor_numbers(seed: int, num_first: int) -> None:
    """Padding is never read: NaN off the chosen tokens reaches nothing."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand((6, 4), generator=generator) < 0.7
    chosen[:, 0] = True
    nan = torch.full((6, 4), torch.nan, dtype=torch.float64)

    def some() -> torch.Tensor:
        x = torch.randn((6, 4), generator=generator, dtype=torch.float64)
        return torch.where(chosen, x, nan)

    statistics = {"logp": some(), "entropy": some(), "value": some()}
    fields = {"adv": some(), "ret": some(), "value_old": some()}
    old, count = torch.where(chosen, some(), 0.0), float(chosen.sum())
    for loss in (ClippedPolicy(0.2), ClippedValue(0.2)):
        whole, parts = None, []
        for rows in (range(6), range(num_first), range(num_first, 6)):
            index = list(rows)
            part = Part(
                chosen[index], old[index], count, cut(statistics, index), cut(fields, index)
            )
            value, numbers = loss(part)
            found = {"value": value, **numbers}
            if whole is None:
                whole = found
            else:
                parts.append(found)
        assert whole is not None
        assert math.isfinite(float(whole["value"]))
        for name, x in whole.items():
            total = float(parts[0][name] + parts[1][name])
            assert total == pytest.approx(float(x), rel=1e-9, abs=1e-12)


def test_losses_are_values() -> None:
    for loss in (ClippedPolicy(0.2), ClippedValue(0.1), BradleyTerry(0.01)):
        assert pickle.loads(pickle.dumps(loss)) == loss
    with pytest.raises(AttributeError):
        ClippedPolicy(0.2).clip = 0.3  # type: ignore[misc]


def test_fields_are_cut_by_their_first_axis_or_their_own_way() -> None:
    pairs = Pairs((0, 1, 2), (1, 2, 3), (1.0, 0.0, 0.5))
    found = cut({"adv": torch.arange(4), "pairs": pairs}, [2, 3])
    assert found["adv"].tolist() == [2, 3]
    assert found["pairs"] == Pairs((0,), (1,), (0.5,))
