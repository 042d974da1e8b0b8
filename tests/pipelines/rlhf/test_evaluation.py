"""Figures that cannot be measured are None, and scores that do not differ have no unit."""

from __future__ import annotations

import pytest
import torch

from plaudit.pipelines.rlhf.evaluation import _matched_distinct
from plaudit.pipelines.rlhf.steps import standardised
from plaudit.records.errors import UserError


def test_answers_of_one_word_have_no_word_pairs() -> None:
    """Yes and no, or a language that is written without spaces."""
    before, after = ["yes", "no", "河流很长"], ["no", "no", "很长"]
    assert _matched_distinct(before, after, 2) == (None, None)
    assert _matched_distinct(before, after, 1) == (1.0, pytest.approx(2 / 3))
    assert _matched_distinct(["", ""], ["a", "b"], 1) == (None, None)


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_scores_that_differ_by_rounding_are_refused(spread) -> None:
    scores = torch.tensor([2.0, 2.0 + spread, 2.0], dtype=torch.float64)
    with pytest.raises(UserError, match="the same score, so PPO would have nothing to climb"):
        standardised(None, scores)  # type: ignore[arg-type]


def test_scores_are_measured_in_their_standard_deviation() -> None:
    unit = standardised(None, torch.tensor([1.0, 3.0, 5.0]))  # type: ignore[arg-type]
    assert (unit.mean, unit.std) == (3.0, 2.0)
