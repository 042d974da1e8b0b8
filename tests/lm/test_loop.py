"""What the language-model algorithms share: order of prompts, minibatches, moments, the KL's price."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.lm.loop import KLController, RunningMoments, minibatches, prompt_batch


def adapted(kl: float) -> float:
    beta = KLController(0.1, target=6.0, horizon=1000)
    beta.adapt(kl, num_answers=64)
    return beta.coef


def test_every_prompt_is_drawn_once_an_epoch() -> None:
    drawn = [i for step in range(10) for i in prompt_batch(7, step=step, size=7, seed=3)]
    for epoch in range(10):
        assert sorted(drawn[7 * epoch : 7 * epoch + 7]) == list(range(7))
    uneven = [i for step in range(14) for i in prompt_batch(7, step=step, size=4, seed=3)]
    assert np.bincount(uneven).tolist() == [8] * 7


def test_minibatches_deal_every_answer_once_and_keep_prompts_whole() -> None:
    parts = list(minibatches([g for g in range(5) for _ in range(3)], number=2, key=(1, 2)))
    assert sorted(row for part in parts for row in part) == list(range(15))
    for part in parts:
        assert len({row // 3 for row in part}) * 3 == len(part)


def test_adaptive_kl_coefficient_by_hand() -> None:
    """Twice the target is an error of 1, cut to 0.2: 0.1·(1 + 0.2·64/1000) = 0.10128."""
    up = adapted(12.0)
    assert up == pytest.approx(0.10128, rel=1e-12)
    # 10 % above the target: 0.1·(1 + 0.1·64/1000) = 0.10064
    little = adapted(6.6)
    assert little == pytest.approx(0.10064, rel=1e-9)
    down = adapted(-3.0)
    assert down == pytest.approx(0.1 * (1 - 0.2 * 64 / 1000), rel=1e-12)


def test_running_moments_equal_those_of_all_scores() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3, 2, size=n) for n in (5, 1, 17)]
    moments = RunningMoments()
    for part in parts:
        moments.add(part.tolist())
    whole = np.concatenate(parts)
    assert moments.mean == pytest.approx(whole.mean(), rel=1e-12)
    assert moments.std == pytest.approx(whole.std(), rel=1e-12)


def test_equal_scores_are_not_scaled_up() -> None:
    moments = RunningMoments()
    moments.add([0.1] * 64)
    assert moments.std == 1.0


def test_minibatches_take_groups_of_any_size() -> None:
    group = [0, 1, 1, 2, 0, 2, 2, 3]
    parts = list(minibatches(group, number=2, key=(7,)))
    assert sorted(row for part in parts for row in part) == list(range(8))
    of_group = [{group[row] for row in part} for part in parts]
    assert not of_group[0] & of_group[1]


def test_without_a_target_the_price_stays() -> None:
    beta = KLController(0.1, target=None, horizon=10)
    beta.adapt(50.0, num_answers=64)
    assert beta.coef == 0.1
