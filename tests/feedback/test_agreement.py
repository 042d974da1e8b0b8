"""Agreement coefficients against published worked examples, and against counting every pair."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oracles.agreement_pairs import (
    DIFFERENCES,
    alpha_by_pairs,
    cohen_by_draws,
    fleiss_by_draws,
    percent_by_pairs,
)
from plaudit.feedback.agreement import (
    UndefinedAgreement,
    category_counts,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from plaudit.records.errors import UserError

# Fleiss 1971, table 1: six psychiatrists, thirty patients; depression, personality disorder,
# schizophrenia, neurosis, other.
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006
10050 11040 03300 10050 02031 00501 30012 51000 02040 10203
00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# Krippendorff 2011, section C: four observers, twelve units.
OBSERVERS = """
A 1 2 3 3 2 1 4 1 2 . . .
B 1 2 3 3 2 2 4 1 2 5 . 3
C . 3 3 3 2 3 4 2 2 5 1 .
D 1 2 3 3 2 4 4 1 2 5 1 .
"""
# Wikipedia, "Fleiss' kappa", worked example: ten subjects, fourteen raters, five categories.
FOURTEEN = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def krippendorff_units():
    rows = [line.split()[1:] for line in OBSERVERS.strip().splitlines()]
    return [
        [None if rating == "." else int(rating) for rating in unit]
        for unit in zip(*rows, strict=True)
    ]


def test_fleiss_on_the_psychiatric_diagnoses_of_1971():
    counts = [[int(n) for n in patient] for patient in DIAGNOSES.split()]
    assert len(counts) == 30
    assert {sum(patient) for patient in counts} == {6}
    assert fleiss_kappa(counts) == pytest.approx(0.430, abs=5e-4)


def test_fleiss_on_ten_subjects_and_fourteen_raters():
    # P = 0.378, P_e = 0.213: (0.378 - 0.213) / (1 - 0.213) = 0.210
    assert fleiss_kappa(FOURTEEN) == pytest.approx(0.210, abs=5e-4)


def test_cohen_on_fifty_grant_proposals():
    # p_o = 35/50 = 0.7, p_e = 0.5 · 0.6 + 0.5 · 0.4 = 0.5, so κ = 0.2 / 0.5
    answers = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10
    answers += [("no", "no")] * 15
    first, second = zip(*answers, strict=True)
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("level", "published"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_krippendorff_on_four_observers_with_missing_ratings(level, published):
    assert krippendorff_alpha(krippendorff_units(), level) == pytest.approx(published, abs=5e-4)


def test_percent_agreement_by_hand():
    # unit 1: of 3 pairs 1 agrees; unit 2: its one pair agrees; unit 3 was rated once
    assert percent_agreement([["a", "a", "b"], ["b", None, "b"], ["a", None, None]]) == 2 / 4


ratings = st.lists(
    st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=3, max_size=3),
    min_size=1,
    max_size=8,
)


@given(ratings, st.sampled_from(list(DIFFERENCES)))
def test_alpha_is_that_of_counting_every_pair(units, level):
    rated = [[r for r in unit if r is not None] for unit in units]
    pool = {r for unit in rated if len(unit) > 1 for r in unit}
    if len(pool) < 2:
        with pytest.raises(UndefinedAgreement):
            krippendorff_alpha(units, level)
        return
    expected = alpha_by_pairs(units, DIFFERENCES[level])
    assert krippendorff_alpha(units, level) == pytest.approx(expected, abs=1e-9)
    assert percent_agreement(units) == pytest.approx(percent_by_pairs(units))


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=4), min_size=1, max_size=8))
def test_fleiss_is_that_of_drawing_from_the_pool(units):
    assume(len({rating for unit in units for rating in unit}) > 1)
    kappa = fleiss_kappa(category_counts(units))
    assert kappa == pytest.approx(fleiss_by_draws(units), abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=20))
def test_cohen_is_that_of_one_draw_from_each_rater(pairs):
    first, second = zip(*pairs, strict=True)
    assume(len({*first, *second}) > 1)
    assert cohen_kappa(first, second) == pytest.approx(cohen_by_draws(first, second), abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2, max_size=20))
def test_for_two_raters_alpha_corrects_fleiss_for_the_small_sample(pairs):
    """Of 2N ratings, 1 - α = (1 - π)(2N - 1)/2N, where π (Scott) is Fleiss' κ of two raters."""
    assume(len({rating for pair in pairs for rating in pair}) > 1)
    num = 2 * len(pairs)
    scott = fleiss_kappa(category_counts(pairs))
    alpha = krippendorff_alpha(pairs, "nominal")
    assert 1 - alpha == pytest.approx((1 - scott) * (num - 1) / num, abs=1e-9)


def test_random_answers_agree_as_chance_does():
    draw = random.Random(0)
    units = [[draw.choice("ab") for _ in range(3)] for _ in range(4000)]
    # the s.d. of each is about 1/sqrt(3 · 4000) = 0.009
    assert abs(fleiss_kappa(category_counts(units))) < 0.04
    assert abs(krippendorff_alpha(units, "nominal")) < 0.04
    assert abs(cohen_kappa([u[0] for u in units], [u[1] for u in units])) < 0.06


def test_whole_agreement_is_one_and_whole_disagreement_of_two_is_minus_one():
    assert cohen_kappa("aabb", "aabb") == 1
    assert cohen_kappa("aabb", "bbaa") == -1
    assert fleiss_kappa([[3, 0], [0, 3]]) == pytest.approx(1)
    assert krippendorff_alpha([[1, 1], [2, 2]], "interval") == 1


@pytest.mark.parametrize(
    ("coefficient", "reason"),
    [
        (lambda: percent_agreement([["a", None], [None, "b"]]), "no unit was rated twice"),
        (lambda: cohen_kappa("aaa", "aaa"), "one and the same answer"),
        (lambda: cohen_kappa(["a", None], [None, "b"]), "share no unit"),
        (lambda: fleiss_kappa([[3, 0], [3, 0]]), "every rating is the same"),
        (lambda: fleiss_kappa([[3, 0], [2, 0]]), "2 to 3 ratings"),
        (lambda: fleiss_kappa([[1, 0], [0, 1]]), "no unit was rated twice"),
        (lambda: fleiss_kappa([]), "no unit"),
        (lambda: krippendorff_alpha([[1, 1], [1, 1]], "nominal"), "every rating is the same"),
        (lambda: krippendorff_alpha([[1, None]], "interval"), "no unit was rated twice"),
    ],
)
def test_where_a_coefficient_is_not_defined_it_says_why_and_is_never_one(coefficient, reason):
    with pytest.raises(UndefinedAgreement, match=reason):
        coefficient()


def test_wrong_input_is_a_sentence():
    with pytest.raises(UserError, match="2 and 3 ratings"):
        cohen_kappa("ab", "abc")
    with pytest.raises(UserError, match="'x' is not a number"):
        krippendorff_alpha([["x", "y"]], "interval")
    with pytest.raises(UserError, match="ratio scale starts at 0"):
        krippendorff_alpha([[-1, 2]], "ratio")
