"""Prompt groups packed into rows, so that a prompt shared by G answers is computed once.

A row holds one prompt followed by its answers, one after another:

    token     p0 p1 p2 | a0 a1 a2 | b0 b1 | (padding)
    segment    0  0  0 |  1  1  1 |  2  2 | -1
    position   0  1  2 |  3  4  5 |  3  4 |  0

A token sees the earlier tokens of its prompt and of its own answer, and nothing else; so every
answer's numbers are those it would have in a row of its own, whatever shares the row with it.
This file knows token ids and indices only; it never hears of templates or of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.records.types import Trajectories


@dataclass(frozen=True)
class Layout:
    """R packed rows of L places, and where each of B answers of at most T tokens lies in them.

    `token`, `position`, `segment`: [R, L]. Flat indices into the R·L places, [B, T]: `own` of
    answer token t, `before` of the place whose output predicts it; both 0 off the answer's `mask`.
    `last` [B] is the place of the last real token: the score sits there, found by the mask and
    never by looking for a pad id. `rows` are the answers' indices in the batch they came from.
    """

    token: Tensor
    position: Tensor
    segment: Tensor
    own: Tensor
    before: Tensor
    last: Tensor
    answer: Tensor
    mask: Tensor
    rows: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    groups: tuple[int, ...]

    def attention(self, dtype: torch.dtype) -> Tensor:
        """Additive mask [R, 1, L, L]: 0 where a query may look, -inf elsewhere."""
        segment = self.segment
        num_places = segment.shape[1]
        place = torch.arange(num_places, device=segment.device)
        causal = place[:, None] >= place[None, :]
        same = segment[:, :, None] == segment[:, None, :]
        prompt = segment[:, None, :] == 0
        # A padding place shares segment -1 with itself, so no row of the softmax is empty.
        allowed = causal & (same | prompt)
        mask = torch.zeros(allowed.shape, dtype=dtype, device=segment.device)
        return mask.masked_fill_(~allowed, float("-inf"))[:, None]


def pack(batch: Trajectories, groups: Sequence[int] | None = None, *, pad_id: int) -> Layout:
    """Lay out the answers of the given prompt groups (all by default), one row for each group."""
    group = batch.group.tolist()
    chosen = sorted(set(group)) if groups is None else list(groups)
    rows_of: dict[int, list[int]] = {g: [] for g in chosen}
    for row, g in enumerate(group):
        if g in rows_of:
            rows_of[g].append(row)
    length = batch.mask.sum(1).tolist()
    prompts = [batch.prompts[g].ids for g in chosen]
    num_places = max(
        len(ids) + sum(length[row] for row in rows_of[g])
        for g, ids in zip(chosen, prompts, strict=True)
    )
    rows = [row for g in chosen for row in rows_of[g]]
    num_answers, num_steps = len(rows), max(max((length[row] for row in rows), default=1), 1)
    token = torch.full((len(chosen), num_places), pad_id, dtype=torch.int64)
    position = torch.zeros_like(token)
    segment = torch.full_like(token, -1)
    own = torch.zeros((num_answers, num_steps), dtype=torch.int64)
    before = torch.zeros_like(own)
    last = torch.zeros(num_answers, dtype=torch.int64)
    answer = batch.answer[rows][:, :num_steps].cpu()
    mask = batch.mask[rows][:, :num_steps].cpu()
    i = 0
    for r, (g, ids) in enumerate(zip(chosen, prompts, strict=True)):
        start, num_prompt = r * num_places, len(ids)
        token[r, :num_prompt] = torch.tensor(ids, dtype=torch.int64)
        position[r, :num_prompt] = torch.arange(num_prompt)
        segment[r, :num_prompt] = 0
        at = num_prompt
        for k, row in enumerate(rows_of[g], 1):
            n = length[row]
            token[r, at : at + n] = answer[i, :n]
            position[r, at : at + n] = torch.arange(num_prompt, num_prompt + n)
            segment[r, at : at + n] = k
            own[i, :n] = torch.arange(start + at, start + at + n)
            before[i, :n] = own[i, :n] - 1
            if n:
                before[i, 0] = start + num_prompt - 1
            last[i] = start + at + n - 1 if n else start + num_prompt - 1
            at += n
            i += 1
    device = batch.answer.device
    return Layout(
        token=token.to(device),
        position=position.to(device),
        segment=segment.to(device),
        own=own.to(device),
        before=before.to(device),
        last=last.to(device),
        answer=answer.to(device),
        mask=mask.to(device),
        rows=tuple(rows),
        prompt_lengths=tuple(len(ids) for ids in prompts),
        groups=tuple(chosen),
    )


def micro_layouts(batch: Trajectories, *, pad_id: int, max_tokens: int) -> Iterator[Layout]:
    """The batch in layouts of at most `max_tokens` places (a single group may exceed it).

    Groups are sorted by length first, so that rows of one layout waste little on padding.
    """
    length = batch.mask.sum(1).tolist()
    size = [len(prompt.ids) for prompt in batch.prompts]
    for row, g in enumerate(batch.group.tolist()):
        size[g] += length[row]
    present = sorted(set(batch.group.tolist()), key=lambda g: (-size[g], g))
    pending: list[int] = []
    for g in present:
        # The first of `pending` is the longest: it sets the row length of the layout.
        if pending and size[pending[0]] * (len(pending) + 1) > max_tokens:
            yield pack(batch, pending, pad_id=pad_id)
            pending = []
        pending.append(g)
    if pending:
        yield pack(batch, pending, pad_id=pad_id)


def place_hidden(layout: Layout, batch: Trajectories) -> Tensor | None:
    """The trunk's output kept from generation, moved to the layout's places: [R, L, H]."""
    if batch.prompt_hidden is None or batch.answer_hidden is None:
        return None
    num_rows, num_places = layout.token.shape
    width = batch.answer_hidden.shape[-1]
    hidden = batch.answer_hidden.new_zeros((num_rows, num_places, width))
    for r, (g, n) in enumerate(zip(layout.groups, layout.prompt_lengths, strict=True)):
        hidden[r, :n] = batch.prompt_hidden[g, :n]
    flat = hidden.view(-1, width)
    answers = batch.answer_hidden[list(layout.rows)][:, : layout.mask.shape[1]]
    flat[layout.own[layout.mask]] = answers[layout.mask]
    return hidden
