"""Packed rows: who sees whom, windows, rows of bounded length, rows of one answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layout_rows import batch_of
from plaudit.models.layout import micro_layouts, pack
from plaudit.records.errors import UserError
from plaudit.records.types import Trajectories


def conversations(batch: Trajectories) -> list[list[int]]:
    return [
        [*batch.prompts[int(batch.group[row])].ids, *batch.token[row][batch.there[row]].tolist()]
        for row in range(len(batch))
    ]


@pytest.mark.parametrize("window", [None, 1, 3, 6])
def test_a_token_sees_its_own_conversation_as_far_as_the_window(window) -> None:
    """Against each conversation alone: the tokens seen are those at most window − 1 before it."""
    batch = batch_of([4, 2], [(0, 3), (0, 5), (1, 4), (0, 1)])
    layout = pack(batch, pad_id=0)
    allowed = layout.attention(torch.float64, window=window)[:, 0] == 0
    width = layout.token.shape[1]
    for i, row in enumerate(layout.rows):
        whole = conversations(batch)[row]
        num_prompt = len(batch.prompts[int(batch.group[row])].ids)
        for t in range(int(batch.chosen[row].sum())):
            r, place = divmod(int(layout.own[i, t]), width)
            seen = layout.token[r][allowed[r, place]].tolist()
            at = num_prompt + t
            first = 0 if window is None else max(0, at - window + 1)
            assert sorted(seen) == sorted(whole[first : at + 1])


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=1, max_size=9),
    st.integers(4, 30),
    st.integers(1, 40),
    st.booleans(),
)
def test_every_answer_stands_in_one_row_behind_its_prompt(
    prompts, answers, max_row, max_tokens, one_each
) -> None:
    batch = batch_of(prompts, [(g % len(prompts), n) for g, n in answers])
    layouts = list(
        micro_layouts(batch, pad_id=0, max_tokens=max_tokens, max_row=max_row, one_each=one_each)
    )
    assert sorted(row for layout in layouts for row in layout.rows) == list(range(len(batch)))
    wanted = conversations(batch)
    for layout in layouts:
        width = layout.token.shape[1]
        for i, row in enumerate(layout.rows):
            places = layout.own[i][layout.there[i]]
            r = int(layout.last[i]) // width
            start = r * width
            found = layout.token.flatten()[
                torch.cat([torch.arange(start, start + layout.prompt_lengths[r]), places])
            ]
            assert found.tolist() == wanted[row]
            assert layout.groups[r] == int(batch.group[row])
        for r in range(len(layout.token)):
            used = int((layout.segment[r] >= 0).sum())
            num_answers = int(layout.segment[r].max())
            assert num_answers <= 1 or not one_each
            assert used <= max_row or num_answers <= 1
        if len(layout.token) > 1:
            assert layout.token.numel() <= max_tokens


def cuts(num_rows):
    """Every way to cut so many rows into parts, as the parts' lengths."""
    if num_rows == 0:
        yield ()
    for first in range(1, num_rows + 1):
        for rest in cuts(num_rows - first):
            yield (first, *rest)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 200),
    st.booleans(),
)
def test_rows_are_cut_where_padding_and_layouts_cost_least(sizes, max_tokens, one_each) -> None:
    """Against every way to cut them: a layout costs 24 places; with rows of one answer each, in
    which a prompt's answers should meet, more than any padding."""
    batch = batch_of([1] * len(sizes), [(g, n) for g, n in enumerate(sizes)])
    found = [
        layout.token.shape
        for layout in micro_layouts(batch, pad_id=0, max_tokens=max_tokens, one_each=one_each)
    ]
    falling = sorted((n + 1 for n in sizes), reverse=True)
    extra = max_tokens if one_each else 24

    def cost(shapes) -> int:
        return sum(rows * width + extra for rows, width in shapes)

    allowed = []
    for parts in cuts(len(falling)):
        begins = [sum(parts[:i]) for i in range(len(parts))]
        shapes = [(n, falling[b]) for b, n in zip(begins, parts, strict=True)]
        if all(rows == 1 or rows * width <= max_tokens for rows, width in shapes):
            allowed.append(cost(shapes))
    assert cost(found) == min(allowed)


def test_a_hole_in_a_mask_is_refused_and_an_empty_answer_is_not() -> None:
    batch = batch_of([2], [(0, 3), (0, 0)])
    assert pack(batch, pad_id=0).there.sum() == 3
    batch.there[0, 1] = False
    with pytest.raises(UserError, match="row 0 of the batch has a hole"):
        pack(batch, pad_id=0)
