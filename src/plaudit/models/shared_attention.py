"""Attention in packed rows without the squares that no token looks at.

A row of a prompt and G answers has (P + G·T)² scores, of which an answer needs T·(P + T):

    prompt   P queries over the P places of their own
    answer   T queries over the prompt's P places and the T of their own

    with shared_attention(layout, masks):
        out = model(...)

Inside the block torch's scaled_dot_product_attention under one of `masks` is made of these two
parts, each under the very entries of the mask that it was given, so that windows are kept; under
any other mask nothing changes. Layouts where that would save little are left alone. Attention that
a model computes by other means never comes here, and is right as it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plaudit.models.exchanged import Exchanged
from plaudit.models.layout import Layout

_LEAST_SAVED = 2**17
"""Scores a head that must be saved: below, gathering costs as much. Tried on a model of 6M."""


def shared_attention(
    layout: Layout, masks: Sequence[Tensor]
) -> contextlib.AbstractContextManager[object]:
    """The block in which attention under `masks` [R, 1, L, L], the layout's own, skips what it can."""
    num_rows, num_places = layout.segment.shape
    longest = max(layout.prompt_lengths)
    num_answers, num_steps = layout.own.shape
    parts = num_rows * longest**2 + num_answers * num_steps * (longest + num_steps)
    if num_rows * num_places**2 - 2 * parts < _LEAST_SAVED or not longest:
        return contextlib.nullcontext()
    places = _Places(layout, longest)
    known = {mask.data_ptr(): (mask.shape[-2:], places.masks(mask)) for mask in masks}

    def attention(*args: Any, **given: Any) -> Any:
        """In two parts where the mask is one of the layout's, else as torch has it."""
        mask = given.get("attn_mask")
        found = None if mask is None else known.get(mask.data_ptr())
        plain = len(args) != 3 or given.get("dropout_p")
        if plain or mask is None or found is None or mask.shape[-2:] != found[0]:
            return F.scaled_dot_product_attention(*args, **given)
        del given["attn_mask"]
        return places.attend(*args, masks=found[1], **given)

    return Exchanged({F.scaled_dot_product_attention: attention})


class _Places:
    """Where prompts and answers lie in the rows of a layout, and in what is made of them."""

    def __init__(self, layout: Layout, longest: int) -> None:
        num_rows, num_places = layout.segment.shape
        device = layout.segment.device
        self.longest, self.shape = longest, (num_rows, num_places)
        self.own, self.there = layout.own, layout.there
        num_answers, num_steps = layout.own.shape
        # an answer that is empty has no place of its own: any row's prompt serves it
        self.row = torch.div(layout.own[:, 0], num_places, rounding_mode="floor")
        lengths = torch.tensor(layout.prompt_lengths, device=device)
        column = torch.arange(longest, device=device)
        self.in_prompt = column < lengths[:, None]
        self.prompt = torch.arange(num_rows, device=device)[:, None] * num_places + column
        source = torch.zeros(num_rows * num_places, dtype=torch.int64, device=device)
        made = torch.arange(num_rows * longest, device=device).view(num_rows, longest)
        source[self.prompt[self.in_prompt]] = made[self.in_prompt]
        made = torch.arange(num_answers * num_steps, device=device).view(num_answers, num_steps)
        source[self.own[self.there]] = made[self.there] + num_rows * longest
        self.source = source

    def masks(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of the prompts [R, 1, P, P] and of the answers [n, 1, T, P + T], the mask's own entries."""
        flat = mask[:, 0]
        of_prompts = mask[:, :, : self.longest, : self.longest]
        place = self.own % self.shape[1]
        row = self.row[:, None, None]
        to_prompt = flat[row, place[:, :, None], torch.arange(self.longest, device=mask.device)]
        to_prompt = to_prompt.masked_fill(~self.in_prompt[self.row][:, None], float("-inf"))
        to_own = flat[row, place[:, :, None], place[:, None, :]]
        to_own = to_own.masked_fill(~self.there[:, None], float("-inf"))
        of_answers = torch.cat([to_prompt, to_own], -1)
        # what stands for no token looks anywhere, so that no softmax is empty
        of_answers = of_answers.masked_fill(~self.there[:, :, None], 0.0)
        return of_prompts, of_answers[:, None]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, masks: tuple[Tensor, Tensor], **how: Any
    ) -> Tensor:
        """[R, H, L, D], as attention under the whole mask gives it; 0 scores for padding."""
        of_prompts, of_answers = masks
        long = self.longest
        q, k, v = (x[:, :, :long] for x in (query, key, value))
        begin = F.scaled_dot_product_attention(q, k, v, attn_mask=of_prompts, **how)
        q = self._answers(query)
        k, v = (
            torch.cat([x[:, :, :long].index_select(0, self.row), self._answers(x)], 2)
            for x in (key, value)
        )
        rest = F.scaled_dot_product_attention(q, k, v, attn_mask=of_answers, **how)
        made = torch.cat([_by_place(begin), _by_place(rest)])
        out = made.index_select(0, self.source)
        return out.view(*self.shape, query.shape[1], -1).transpose(1, 2)

    def _answers(self, x: Tensor) -> Tensor:
        """[R, H, L, D] -> [n, H, T, D]."""
        found = _by_place(x).index_select(0, self.own.flatten())
        return found.view(*self.own.shape, x.shape[1], -1).transpose(1, 2)


def _by_place(x: Tensor) -> Tensor:
    """[R, H, L, D] -> [R·L, H·D]."""
    return x.transpose(1, 2).reshape(x.shape[0] * x.shape[2], -1)
