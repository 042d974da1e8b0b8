"""Alarms on planted curves: each is raised by its fault, and by nothing else."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from plaudit.pipelines.alarms import CHECKS, Curve, alarms
from plaudit.pipelines.curves import curves, overoptimisation, thinned

STEPS = 24


def healthy(seed=0, steps=STEPS):
    """A run as it should be: reward and gold rise with noise, the KL grows from 0, answers end."""
    rng = random.Random(seed)
    rows = [
        {"stage": "reward_model", "step": k, "event": "evaluation", "eval/accuracy": 0.5 + 0.05 * k}
        for k in range(5)
    ]
    for k in range(steps):
        rows.append(
            {
                "stage": "ppo",
                "step": k + 1,
                "event": "step",
                "objective/scores": 0.1 * k + rng.gauss(0, 0.2),
                "gold/mean": 0.05 * k + rng.gauss(0, 0.1),
                "objective/kl": 0.2 * k,
                "answer/length": 30 + 0.2 * k + rng.gauss(0, 2),
                "answer/finished": 0.8 + rng.gauss(0, 0.05),
                "groups/with_signal": 0.7,
            }
        )
    return rows


def planted(name, of_step, stage="ppo", **options):
    """A healthy run in which one curve is another."""
    return [
        row | {name: of_step(row["step"])} if row["stage"] == stage else row
        for row in healthy(**options)
    ]


def kinds(rows):
    return [alarm.kind for alarm in alarms(rows)]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("steps", [1, 3, 6, 10, 24, 200])
def test_a_healthy_run_raises_none_however_noisy(seed, steps):
    rows = healthy(seed, steps)
    if steps > 40:  # what drifts for so long has drifted
        rows = [row | {"answer/length": 30.0} if row["stage"] == "ppo" else row for row in rows]
    assert kinds(rows) == []


@pytest.mark.parametrize(
    ("kind", "name", "of_step", "stage"),
    [
        ("exploited", "gold/mean", lambda k: 0.1 * k if k < 12 else 1.2 - 0.1 * (k - 12), "ppo"),
        ("zero_variance", "groups/with_signal", lambda k: max(0.6 - 0.05 * k, 0.0), "ppo"),
        ("answers_longer", "answer/length", lambda k: 30 + 2.0 * k, "ppo"),
        ("answers_shorter", "answer/length", lambda k: 60 - 2.0 * k, "ppo"),
        ("missing_end", "answer/finished", lambda k: max(1 - 0.05 * k, 0.02), "ppo"),
        ("never_ends", "answer/finished", lambda k: 0.0, "ppo"),
        ("kl_at_start", "objective/kl", lambda k: 0.3 + 0.1 * k, "ppo"),
        ("reward_at_chance", "eval/accuracy", lambda k: 0.51, "reward_model"),
    ],
)
def test_a_planted_fault_raises_its_alarm_alone(kind, name, of_step, stage):
    found = alarms(planted(name, of_step, stage))
    assert [alarm.kind for alarm in found] == [kind]
    assert found[0].stage == stage
    assert found[0].sentence.endswith(".")
    assert all(math.isfinite(number) for number in found[0].numbers.values())


def test_what_is_said_of_an_exploited_reward_is_where_it_turned():
    rows = planted("gold/mean", lambda k: 0.1 * k if k < 12 else 1.2 - 0.1 * (k - 12))
    [alarm] = alarms(rows)
    assert 10 <= alarm.numbers["peak_step"] <= 16
    assert alarm.numbers["peak"] == pytest.approx(1.1, abs=0.1)
    assert alarm.numbers["now"] == pytest.approx(0.25, abs=0.01)
    assert "exploits the reward model" in alarm.sentence


def test_gold_that_falls_with_the_reward_is_another_fault():
    rows = planted("gold/mean", lambda k: -0.1 * k)
    rows = [row | {"objective/scores": -row["step"]} if "gold/mean" in row else row for row in rows]
    assert kinds(rows) == []


def test_one_odd_step_raises_nothing_and_what_is_mended_is_told_no_longer():
    assert kinds(planted("answer/length", lambda k: 300.0 if k == 12 else 30.0)) == []
    assert kinds(planted("groups/with_signal", lambda k: 0.0 if k < 10 else 0.5)) == []
    assert kinds(planted("answer/finished", lambda k: 0.1 if k < 10 else 0.9)) == []


def test_a_first_step_that_is_not_the_runs_first_says_nothing_of_the_kl():
    rows = [r | {"step": r["step"] + 5} for r in planted("objective/kl", lambda k: 1.0)]
    assert "kl_at_start" not in kinds(rows)


def test_rows_that_lack_numbers_are_borne():
    odd = [{"stage": "ppo", "step": k, "objective/kl": float("nan"), "note": "x"} for k in range(9)]
    assert alarms([{}, *odd]) == []
    assert all(list(check("ppo", [])) == [] for check in CHECKS)


def test_the_noise_of_a_curve_is_that_of_the_difference_of_two_windows():
    """Against the definition: the spread of (mean of n − mean of n) over many curves of noise 1."""
    rng = random.Random(1)
    noises, differences = [], []
    for _ in range(400):
        one = Curve(tuple(range(40)), tuple(rng.gauss(0, 1) for _ in range(40)))
        noises.append(one.noise)
        differences.append(one.last - one.first)
    spread = math.sqrt(sum(d * d for d in differences) / len(differences))
    assert sum(noises) / len(noises) == pytest.approx(spread, rel=0.1)
    steep = replace(one, values=tuple(100.0 + 0.01 * k for k in range(40)))
    assert steep.noise < 0.01


# --- curves


def test_curves_hold_the_numbers_by_stage_and_metric():
    rows = [
        {"stage": "ppo", "step": 1, "event": "step", "time": "t", "seconds": 1.0, "lr": 0.1},
        {"stage": "ppo", "step": 2, "event": "step", "lr": float("inf"), "note": "x", "ok": True},
        {"stage": "ppo", "step": 3, "event": "step", "lr": 0.3},
    ]
    assert curves(rows) == {"ppo": {"lr": [(1, 0.1), (3, 0.3)]}}


def test_a_thinned_curve_keeps_ends_peaks_and_order():
    points = [(k, math.sin(k / 50)) for k in range(10_000)]
    points[7003] = (7003, 9.0)
    few = thinned(points)
    assert len(few) <= 600
    assert few[0] == points[0]
    assert few[-1] == points[-1]
    assert (7003, 9.0) in few
    assert [step for step, _ in few] == sorted({step for step, _ in few})
    assert set(few) <= set(points)
    assert thinned(points[:600]) == points[:600]


def test_overoptimisation_joins_what_is_said_of_one_step():
    rows = [
        {"stage": "ppo", "step": 1, "objective/kl": -0.01, "objective/scores": 0.5},
        {"stage": "ppo", "step": 1, "event": "evaluation", "eval/reward": 0.25},
        {"stage": "ppo", "step": 2, "objective/kl": 4.0, "objective/scores": 0.7, "gold/mean": 0.6},
        {"stage": "reward_model", "step": 1, "loss": 0.7},
    ]
    assert overoptimisation(rows) == [
        {"step": 1.0, "sqrt_kl": 0.0, "reward": 0.5, "eval": 0.25},
        {"step": 2.0, "sqrt_kl": 2.0, "reward": 0.7, "gold": 0.6},
    ]


@pytest.mark.parametrize("steps", [6, 10, 24, 60, 200])
def test_a_flat_gold_score_is_seldom_taken_for_a_falling_one(steps):
    raised = 0
    for seed in range(200):
        rng = random.Random(seed + 1000)
        rows = planted("gold/mean", lambda k, rng=rng: rng.gauss(0, 0.1), seed=seed, steps=steps)
        raised += "exploited" in kinds(rows)
    assert raised <= 8
