"""Several measures as one total: who spoke, and what nobody judged."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit import ops

NONE = math.nan


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_by_hand_with_measures_that_abstain():
    scores = {"a": t(1.0, NONE, 3.0, NONE), "b": t(10.0, 20.0, NONE, NONE)}
    total, heard = ops.combined(scores, [2.0, 0.5])
    assert total.tolist() == [7.0, 10.0, 6.0, 0.0]
    assert heard.tolist() == [True, True, True, False]


def test_a_measure_that_counts_for_nothing_makes_no_row_heard():
    scores = {"a": t(1.0, NONE), "watched": t(5.0, 5.0)}
    total, heard = ops.combined(scores, [1.0, 0.0])
    assert total.tolist() == [1.0, 0.0]
    assert heard.tolist() == [True, False]


values = st.one_of(st.none(), st.floats(-10, 10))


@given(
    st.lists(st.tuples(values, values, values), min_size=1, max_size=5), st.permutations(range(3))
)
def test_it_is_the_sum_over_those_that_speak(rows, order):
    weights = [1.5, -2.0, 0.25]
    columns = list(zip(*rows, strict=True))
    scores = {str(i): t(*(NONE if value is None else value for value in columns[i])) for i in order}
    total, heard = ops.combined(scores, [weights[i] for i in order])
    for row, each in enumerate(rows):
        spoken = [w * x for w, x in zip(weights, each, strict=True) if x is not None]
        assert total[row].item() == pytest.approx(math.fsum(spoken), abs=1e-12)
        assert heard[row].item() == bool(spoken)


@pytest.mark.parametrize(("names", "weights"), [("ab", [1.0]), ("a", [1.0, 2.0]), ("", [])])
def test_one_weight_is_needed_for_each(names, weights):
    with pytest.raises(ValueError, match="weights were given for"):
        ops.combined({name: t(1.0) for name in names}, weights)


def test_measures_of_different_batches_are_refused(unchecked_shapes):
    with pytest.raises(ValueError, match="same shape"):
        ops.combined({"a": t(1.0), "b": t(1.0, 2.0)}, [1.0, 1.0])
