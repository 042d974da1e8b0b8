"""What a control run's page says of its return."""

from __future__ import annotations

import pytest

from plaudit.pipelines.pages.control_report import verdict


def row(step, value, low):
    return {"step": step, "eval/return": value, "eval/return_low": low}


def results(value, low, high):
    return {"steps": 5000, "eval/return": value, "eval/return_low": low, "eval/return_high": high}


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (480.0, 500.0, "above"),
        (475.0, 475.0, "above"),
        (450.0, 490.0, "around"),
        (1.0, 474.0, "below"),
    ],
)
def test_the_interval_decides_how_the_return_compares(low, high, word):
    said = verdict([], results((low + high) / 2, low, high), {"threshold of theirs": 475.0})
    assert f"interval {low:.4g} to {high:.4g}" in said[0]
    assert f"That is {word} 475, the threshold of theirs." in said[0]
    assert "That is" not in verdict([], results(low, low, high), {})[0]


def test_a_better_checkpoint_is_named_only_where_it_was_surely_better():
    """Its interval must lie above the last one's."""
    log = [row(1000, 300.0, 250.0), row(2000, 450.0, 420.0), row(5000, 380.0, 350.0)]
    said = verdict(log, results(380.0, 350.0, 410.0), {})
    assert "450 at step 2,000" in said[1]
    assert len(verdict(log, results(400.0, 370.0, 430.0), {})) == 1
    assert len(verdict([], results(400.0, 370.0, 430.0), {})) == 1
