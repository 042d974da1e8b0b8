"""The book's figures on prediction: numbers read off them, measured oracles and exact values."""

from __future__ import annotations

import numpy as np
import pytest

from plaudit.mdp.learning.gradient_td import gtd2, tdc
from plaudit.mdp.learning.traces import td_lambda_accumulating, true_online_td_lambda
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from studies import baird, prediction
from studies.curves import averaged, rms


def test_td_beats_monte_carlo_on_the_five_state_walk():
    """Example 6.2: both begin at 0.2357; TD at α = 0.05 ends below every Monte Carlo curve."""
    curves = prediction.td_and_monte_carlo(num_runs=100)
    begin = np.sqrt(np.mean((0.5 - np.arange(1, 6) / 6) ** 2))
    assert round(begin, 4) == 0.2357
    assert all(np.isclose(mean[0], begin) for mean in curves.mean.values())
    # read off the figure, to the width of its lines
    for label, at_100 in (("TD α=0.05", 0.035), ("TD α=0.15", 0.066), ("MC α=0.01", 0.095)):
        assert abs(curves.mean[label][-1] - at_100) < 0.01, label
    td, mc = (
        min(m.min() for name, m in curves.mean.items() if name[:2] == kind) for kind in ("TD", "MC")
    )
    assert td < 0.04 < 0.07 < mc


def test_values_of_one_run_go_from_a_half_to_the_truth():
    values = prediction.random_walk_values()
    changed = np.flatnonzero(values[1] != 0.5)
    assert changed.size == 1, "the first episode changes one end alone"
    assert changed[0] in (0, 4)
    assert abs(values[1][changed[0]] - 0.5) == pytest.approx(0.05)
    errors = [rms(values[count], np.arange(1, 6) / 6) for count in (0, 10, 100)]
    assert errors[2] < errors[1] < errors[0]


def test_batch_td_is_better_than_batch_monte_carlo():
    """Figure 6.2: after 100 episodes about 0.04 against 0.06, TD lower from the tenth on."""
    curves = prediction.batch_td_and_monte_carlo(num_runs=20)
    td, mc = curves.mean["batch TD"], curves.mean["batch MC"]
    assert (td[9:] < mc[9:]).all()
    assert abs(td[-1] - 0.04) < 0.015
    assert abs(mc[-1] - 0.065) < 0.02


def test_n_step_errors_of_the_19_state_walk():
    """Figure 7.2, the best α of each n: an intermediate n is best."""
    curves = prediction.n_step_walk(steps=(1, 2, 4, 8, 16), num_runs=100)
    measured = {1: 0.344, 2: 0.274, 4: 0.260, 8: 0.273, 16: 0.309}
    for n, expected in measured.items():
        found, error, _ = curves.best(f"n={n}")
        # 300 runs and finer α there, 100 runs here: two standard errors and the coarser α
        assert abs(found - expected) < 2 * error + 0.006, n
    best = {n: curves.best(f"n={n}")[0] for n in measured}
    assert min(best, key=best.get) == 4


@pytest.mark.parametrize(
    ("learner", "expected"), [(td_lambda_accumulating, 0.259), (true_online_td_lambda, 0.251)]
)
def test_td_lambda_errors_of_the_19_state_walk(learner, expected):
    """Figures 12.6 and 12.8: the best of λ = 0.8."""
    curves = prediction.lambda_walk(learner, lams=(0.8,), num_runs=100)
    found, error, _ = curves.best("lam=0.8")
    assert abs(found - expected) < 2 * error + 0.002


def test_the_offline_lambda_return_is_as_good_as_the_best_n():
    """Figure 12.3: λ = 0.8 near 0.26, the ends λ = 0 and 1 far worse."""
    curves = prediction.lambda_walk(lams=(0.0, 0.8, 1.0), num_runs=100)
    best = {label: curves.best(label)[0] for label in curves.mean}
    assert abs(best["lam=0.8"] - 0.26) < 0.012
    assert best["lam=0"] > 0.33
    assert best["lam=1"] > 0.5


def test_true_online_is_steadier_than_accumulating_at_large_steps():
    """Figure 12.8: at λ = 0.95 and α = 0.6 accumulating traces have blown up, dutch ones not."""
    same = {"lams": (0.95,), "alphas": (0.6,), "num_runs": 20}
    dutch = prediction.lambda_walk(true_online_td_lambda, **same).mean["lam=0.95"][0]
    piled = prediction.lambda_walk(td_lambda_accumulating, **same).mean["lam=0.95"][0]
    assert dutch < 0.55 < 5 < piled


def test_sticking_on_20_and_21_is_valued_right():
    """Figure 5.1: the estimate tends to the exact surface; 21 is nearly sure, 19 a sure loser."""
    hands = prediction.blackjack_stick_on_20(num_episodes=500_000)
    game = world("blackjack-book")
    exact = game.initial @ evaluate(game, prediction.stick_on_20()).value
    assert abs(hands.start_value - exact) < 4 * 1 / np.sqrt(500_000)
    assert np.abs(hands.value - hands.exact).max(axis=(1, 2))[0] < 0.04
    assert np.abs(hands.value - hands.exact).max(axis=(1, 2))[1] < 0.25  # usable aces are rare
    assert hands.exact[:, 9].min() > 0.6
    assert hands.exact[:, 7].max() < 0
    assert (hands.policy[:, 8:] == prediction.STICK).all()
    assert (hands.policy[:, :8] == prediction.HIT).all()


def test_exploring_starts_find_the_book_s_strategy():
    """Figure 5.2: stick from 13 against 2 to 6, from 12 against 4 to 6, from 17 else; with an ace
    from 19 against 9, 10 and ace (and hit soft 18 there), else from 18."""
    hands, learned = prediction.blackjack_exploring_starts(num_episodes=3_000_000)
    strategy = np.full((2, 10, 10), prediction.HIT)
    strategy[0, 5:] = prediction.STICK
    strategy[0, 1:, 1:6] = prediction.STICK
    strategy[0, 0, 3:6] = prediction.STICK
    strategy[1, 7:] = prediction.STICK
    strategy[1, 6, 1:8] = prediction.STICK
    game = world("blackjack-book")
    # the two nearest decisions: 16 against 10 and 12 against 4 differ by less than 0.005
    assert (hands.policy != strategy).sum() <= 2
    assert hands.start_value > game.initial @ solve(game).value - 0.001
    assert learned.num_cut == 0


def test_importance_sampling_of_one_blackjack_state():
    """Figure 5.3: weighted is better in few episodes, both tend to 0; the truth is -0.277204."""
    game = world("blackjack-book")
    state = game.state("13 against 2 with ace")
    truth = evaluate(game, prediction.stick_on_20()).value[state]
    assert round(truth, 6) == -0.277204
    curves = prediction.blackjack_importance_sampling(num_runs=50, num_episodes=3000)
    plain, weighted = curves.mean.values()
    assert (weighted[:10] < plain[:10]).all()
    assert plain[0] > 2
    assert max(plain[-1], weighted[-1]) < 0.01


def test_ordinary_importance_sampling_can_fail_for_ever():
    """Figure 5.4: E[(ρG)²] = 0.1 Σ 0.9^k 2^(k+1) is infinite; runs stay far apart."""
    shown, runs = prediction.infinite_variance(num_runs=10, num_episodes=100_000)
    assert shown[0] == 1
    assert shown[-1] == 100_000
    late = runs[:, shown > 1000]
    jumps = np.diff(late, axis=1).max(axis=1)
    assert (jumps > 0.1).sum() >= 5, "single episodes go on to move the average"
    assert np.abs(runs[:, -1] - 1).max() > 0.1
    trap = prediction.left_for_ever()
    assert evaluate(trap, [0, 0]).value[0] == pytest.approx(1)
    terms = 0.1 * 0.9 ** np.arange(60) * 2.0 ** np.arange(1, 61)
    assert (np.diff(terms) > 0).all(), "the terms of the variance grow"


def test_aggregated_monte_carlo_stands_at_the_average_of_each_group():
    """Figure 9.1: a staircase; its ends are bent towards the more visited side of a group."""
    walk = prediction.aggregated_monte_carlo()
    assert abs(walk.visited.sum() - 1) < 1e-9
    assert walk.visited.argmax() == 499  # state 500, where episodes begin
    assert 0.01 < walk.visited.max() < 0.02  # 0.0137 in the figure
    assert np.abs(walk.value - walk.limit).max() < 0.06
    assert np.unique(walk.value).size == 10
    first = walk.exact[:100]
    assert walk.limit[0] > first.mean(), "state 100 is met more than state 1"


def test_aggregated_td_stands_at_its_own_fixed_point():
    """Figure 9.2, left: further from the truth than Monte Carlo's answer, biased to the middle."""
    walk = prediction.aggregated_td()
    assert np.abs(walk.value - walk.limit).max() < 0.06
    average = prediction.aggregated_monte_carlo(num_episodes=1).limit
    weight = walk.visited
    td, mc = (np.sqrt(weight @ (v - walk.exact) ** 2) for v in (walk.limit, average))
    assert td > 1.5 * mc
    assert np.abs(walk.limit[[0, -1]]).max() < np.abs(average[[0, -1]]).min()


def test_n_step_with_groups_looks_like_n_step_with_a_table():
    """Figure 9.2, right: again n = 4 is best, with nearly the error of the 19-state walk."""
    curves = prediction.aggregated_n_step(steps=(1, 4, 16), num_runs=20)
    best = {label: curves.best(label)[0] for label in curves.mean}
    assert min(best, key=best.get) == "n=4"
    assert 0.25 < best["n=4"] < 0.29
    assert best["n=1"] > 0.32


def test_semi_gradient_td_blows_up_on_baird_s_counterexample():
    """Figure 11.2: the weights of the upper states pass 100 and w8 300 within 1,000 steps."""
    course = baird.semi_gradient_course()
    assert course.weights[0].tolist() == [1, 1, 1, 1, 1, 1, 10, 1]
    assert course.weights[-1, 7] > 250
    assert np.linalg.norm(course.weights[1000]) > 5 * np.linalg.norm(course.weights[300])
    expected = baird.expected_semi_gradient_course()
    assert expected.weights[-1, 7] == pytest.approx(335, abs=15)  # off the figure's right side
    assert np.ptp(expected.weights[:, :6], axis=1).max() < 1e-9, "the six stay alike"
    system = baird.system_of(baird.baird())
    assert np.linalg.eigvals(system.matrix).real.min() < 0, "a direction that grows"


@pytest.mark.parametrize("learner", [tdc, gtd2])
def test_gradient_td_does_not(learner):
    """Figure 11.5: √PBE goes towards 0, √VE stays near 2, the weights end near (2, ..., 7, -2)."""
    course = baird.gradient_course(learner)
    assert course.projected_error[-1] < 0.2 < 8 < course.projected_error[0]
    assert 1.7 < course.value_error[-1] < 2.2
    assert np.abs(course.weights[-1] - np.array([2.1] * 6 + [6.6, -2.3])).max() < 0.3


def test_expected_tdc_comes_to_the_truth_in_the_very_long_run():
    """√VE → 0, but in some 10⁸ steps: the powers of its linear step, by squaring."""
    case = baird.baird()
    step, shift = baird.expected_tdc(case, 0.005, 0.05)
    assert not shift.any()
    start = np.concatenate([case.start_weights, np.zeros(8)])
    slow = baird.expected_tdc_course(num_sweeps=200)
    assert np.allclose((np.linalg.matrix_power(step, 200) @ start)[:8], slow.weights[-1])
    value = [
        np.abs(case.features @ (np.linalg.matrix_power(step, 2**k) @ start)[:8]).max()
        for k in (10, 24, 31)
    ]
    assert value[0] > 1.9
    assert value[1] < 0.4
    assert value[2] < 1e-6


def test_averages_carry_their_standard_error():
    mean, error = averaged(lambda seed: np.array([seed, 1.0]), 5)
    assert mean.tolist() == [2.0, 1.0]
    assert error == pytest.approx([np.sqrt(2.5 / 5), 0.0])
