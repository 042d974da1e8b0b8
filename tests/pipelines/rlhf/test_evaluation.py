"""Figures that cannot be measured are None, and scores that do not differ have no unit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from plaudit.pipelines.pages.report_contents import notices
from plaudit.pipelines.rlhf.evaluation import Side, _matched_distinct, compare_sides
from plaudit.pipelines.rlhf.steps import standardised
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories


def test_answers_of_one_word_have_no_word_pairs() -> None:
    """Yes and no, or a language that is written without spaces."""
    before, after = ["yes", "no", "河流很长"], ["no", "no", "很长"]
    assert _matched_distinct(before, after, 2) == (None, None)
    assert _matched_distinct(before, after, 1) == (1.0, pytest.approx(2 / 3))
    assert _matched_distinct(["", ""], ["a", "b"], 1) == (None, None)


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_scores_that_differ_by_rounding_are_refused(spread) -> None:
    scores = torch.tensor([2.0, 2.0 + spread, 2.0], dtype=torch.float64)
    with pytest.raises(UserError, match="the same score, so nothing could be climbed"):
        standardised(None, scores)  # type: ignore[arg-type]


def test_scores_are_measured_in_their_standard_deviation() -> None:
    unit = standardised(None, torch.tensor([1.0, 3.0, 5.0]))  # type: ignore[arg-type]
    assert (unit.mean, unit.std) == (3.0, 2.0)


def side(gold: list[float], lengths: list[int], nll: float) -> Side:
    """Two answers to each of four prompts, every token as surprising as `nll` says."""
    mask = torch.arange(8)[None, :] < torch.tensor(lengths)[:, None]
    prompts = [Prompt(ids=(1,), text=f"Prompt {n}", columns={}) for n in range(4)]
    batch = Trajectories.of_answers(
        prompts=prompts,
        group=torch.arange(4).repeat_interleave(2),
        token=torch.zeros(8, 8, dtype=torch.int64),
        mask=mask,
        logp=torch.full((8, 8), -nll),
        terminated=torch.ones(8, dtype=torch.bool),
        texts=["word " * n for n in lengths],
        sampling=Sampling(max_new_tokens=8),
    )
    logp = torch.full((8, 8), -nll).masked_fill(~mask, math.nan)  # what nobody chose counts nowhere
    reward = torch.tensor(gold) * 2
    return Side(batch, reward=reward, logp_ref=batch.logp, logp_own=logp, gold=gold)


def test_a_change_is_measured_between_answers_to_the_same_prompt() -> None:
    """Prompts differ by 1 and each answer gains 0.1 or 0.3: both sides overlap widely, the gains of
    every prompt are 0.2 in the mean, so their interval is a point."""
    before = [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    after = [b + gain for b, gain in zip(before, [0.1, 0.3] * 4, strict=True)]
    found = compare_sides(side(before, [4] * 8, 1.0), side(after, [4] * 8, 1.0))
    assert found["gold_change"] == pytest.approx(0.2)
    assert found["gold_change_interval"] == pytest.approx([0.2, 0.2])
    assert found["reward_change"] == pytest.approx(0.4)
    assert found["gold_before_interval"][1] > found["gold_after_interval"][0]


def test_lengths_and_perplexity_have_intervals_over_prompts() -> None:
    lengths = [1, 1, 2, 2, 3, 3, 6, 6]
    found = compare_sides(side([0.0] * 8, lengths, 1.0), side([0.0] * 8, lengths, 1.5))
    assert found["length_before"] == np.mean(lengths)
    low, high = found["length_before_interval"]
    assert 1 <= low < 3 < high <= 6
    assert found["perplexity_before"] == pytest.approx(math.e)
    assert found["perplexity_after_interval"] == pytest.approx([math.exp(1.5)] * 2)
    assert [line for line in notices(found) if "1.6 times as surprising" in line]
    assert not [line for line in notices(found) if "longer" in line]
