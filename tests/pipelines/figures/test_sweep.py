"""What is told of a sweep: curves of different logs, medians with seeds that never arrive, tails."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plaudit.pipelines.figures.sweep import Figures, Outcome, common_curve, last_row, table


def outcome(seed, final, reached=None):
    return Outcome(seed, final, final, 100, 1.0, reached)


def figures(*outcomes, reach=None):
    return Figures("climb", "eval/return", reach, outcomes, {}, {})


def test_curves_of_different_logs_meet_on_the_steps_of_the_shortest():
    one = (np.array([0.0, 10.0, 20.0, 30.0]), np.array([0.0, 10.0, 20.0, 30.0]))
    two = (np.array([5.0, 15.0, 25.0]), np.array([100.0, 200.0, 150.0]))
    steps, values = common_curve([one, two])
    assert steps.tolist() == [5, 15, 25]
    assert values.tolist() == [[5, 15, 25], [100, 200, 150]]


def test_curves_that_do_not_overlap_are_not_drawn():
    early = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    late = (np.array([5.0, 6.0]), np.array([0.0, 1.0]))
    assert common_curve([early, late]) is None
    assert common_curve([early, (np.array([0.5]), np.array([1.0]))]) is None
    # The shortest log has one step that both cover, 1: one point is no curve.
    longer = (np.array([0.0, 1.0, 1.5]), np.array([0.0, 1.0, 1.5]))
    assert common_curve([longer, (np.array([1.0, 9.0]), np.array([1.0, 9.0]))]) is None


@pytest.mark.parametrize(
    ("reached", "median"),
    [
        ([300, 100, None], 300.0),
        ([None, None, 100], None),
        ([100, 200], 150.0),
        ([100, None], None),
    ],
)
def test_a_seed_that_never_arrives_counts_as_later_than_all(reached, median):
    found = figures(*(outcome(i, 0.0, at) for i, at in enumerate(reached)), reach=1.0)
    assert found.median_reached == median
    said = table(found)[-1]
    assert said.startswith(f"{sum(at is not None for at in reached)} of {len(reached)} seeds")
    assert ("median" in said) == (median is not None)


def test_the_aggregate_of_one_seed_is_a_point():
    interval = figures(outcome(3, 7.0)).aggregate["interquartile mean"]
    assert (interval.value, interval.low, interval.high, interval.num) == (7, 7, 7, 1)


def test_the_last_line_is_read_from_the_end(tmp_path):
    assert last_row(tmp_path) == {}
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1')
    assert last_row(tmp_path) == {}
    rows = [{"step": step, "far": "x" * 100} for step in range(1000)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 10')
    assert last_row(tmp_path) == rows[-1]
