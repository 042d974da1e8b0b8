"""Prompt groups packed into rows, so that a prompt shared by G answers is computed once.

A row holds one prompt followed by its answers, one after another:

    token     p0 p1 p2 | a0 a1 a2 | b0 b1 | (padding)
    segment    0  0  0 |  1  1  1 |  2  2 | -1
    position   0  1  2 |  3  4  5 |  3  4 |  0

A token sees the earlier tokens of its prompt and of its own answer, and nothing else; so every
answer's numbers are those it would have in a row of its own, whatever shares the row with it. An
answer is all that follows the prompt, observations between the policy's turns included: all of it
is read, and what of it was chosen is a mask. A prompt with many answers takes several rows, as a
row's mask grows with the square of its length; a model that cannot be told such a mask gets rows of
one answer each. This file knows token ids and indices only; it never hears of templates or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.records.errors import UserError
from plaudit.records.types import Trajectories


@dataclass(frozen=True)
class Layout:
    """R packed rows of L places, and where each of B answers of at most T tokens lies in them.

    `token`, `position`, `segment`: [R, L]. Of the answers, [B, T]: their ids `answer`, and the
    masks `there` and `chosen`. Flat indices into the R·L places, [B, T]: `own` of token t, `before`
    of the place whose output predicts it; both 0 where no token is there. `last` [B] is the place
    of the last chosen token (of the last one there, where none is chosen): the score sits there,
    found by the mask and never by looking for a pad id. `rows` are the answers' indices in the batch they came from.
    """

    token: Tensor
    position: Tensor
    segment: Tensor
    own: Tensor
    before: Tensor
    last: Tensor
    answer: Tensor
    there: Tensor
    chosen: Tensor
    rows: tuple[int, ...]
    prompt_lengths: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def is_packed(self) -> bool:
        """Whether some row holds two answers or more, which must not see each other."""
        return int(self.segment.max()) > 1

    def attention(self, dtype: torch.dtype, *, window: int | None = None) -> Tensor:
        """Additive mask [R, 1, L, L]: 0 where a query may look, -inf elsewhere.

        With a window a token sees itself and the `window` - 1 positions before it: positions of
        its own conversation, not places of the row.
        """
        segment = self.segment
        num_places = segment.shape[1]
        place = torch.arange(num_places, device=segment.device)
        causal = place[:, None] >= place[None, :]
        same = segment[:, :, None] == segment[:, None, :]
        prompt = segment[:, None, :] == 0
        # A padding place shares segment -1 with itself, so no row of the softmax is empty.
        allowed = causal & (same | prompt)
        if window is not None:
            distance = self.position[:, :, None] - self.position[:, None, :]
            allowed &= distance < window
        mask = torch.zeros(allowed.shape, dtype=dtype, device=segment.device)
        return mask.masked_fill_(~allowed, float("-inf"))[:, None]


Piece = tuple[int, list[int]]
"""What a row holds: a prompt's number, and the rows of the batch that answer it there."""


def pack(
    batch: Trajectories,
    pieces: Sequence[Piece] | None = None,
    *,
    pad_id: int,
    length: Sequence[int] | None = None,
) -> Layout:
    """Lay out the given pieces, one a row; by default each prompt with all of its answers.

    `length` are the answers' lengths where a caller has them. Raises UserError as `lengths` does.
    """
    length = lengths(batch) if length is None else length
    pieces = _groups(batch) if pieces is None else pieces
    prompts = [batch.prompts[g].ids for g, _ in pieces]
    num_places = max(
        len(ids) + sum(length[row] for row in rows)
        for (_, rows), ids in zip(pieces, prompts, strict=True)
    )
    rows = [row for _, of_piece in pieces for row in of_piece]
    num_answers, num_steps = len(rows), max(max((length[row] for row in rows), default=1), 1)
    token = torch.full((len(pieces), num_places), pad_id, dtype=torch.int64)
    position = torch.zeros_like(token)
    segment = torch.full_like(token, -1)
    own = torch.zeros((num_answers, num_steps), dtype=torch.int64)
    before = torch.zeros_like(own)
    last = torch.zeros(num_answers, dtype=torch.int64)
    answer = batch.token[rows][:, :num_steps].cpu()
    there = batch.there[rows][:, :num_steps].cpu()
    chosen = batch.chosen[rows][:, :num_steps].cpu()
    i = 0
    for r, ((_, of_piece), ids) in enumerate(zip(pieces, prompts, strict=True)):
        start, num_prompt = r * num_places, len(ids)
        token[r, :num_prompt] = torch.tensor(ids, dtype=torch.int64)
        position[r, :num_prompt] = torch.arange(num_prompt)
        segment[r, :num_prompt] = 0
        at = num_prompt
        for k, row in enumerate(of_piece, 1):
            n = length[row]
            token[r, at : at + n] = answer[i, :n]
            position[r, at : at + n] = torch.arange(num_prompt, num_prompt + n)
            segment[r, at : at + n] = k
            own[i, :n] = torch.arange(start + at, start + at + n)
            before[i, :n] = own[i, :n] - 1
            if n:
                before[i, 0] = start + num_prompt - 1
            last[i] = own[i, n - 1] if n else start + num_prompt - 1
            drawn = chosen[i].nonzero()
            if len(drawn):
                last[i] = own[i, drawn[-1, 0]]
            at += n
            i += 1
    tensors = {
        "token": token, "position": position, "segment": segment, "own": own, "before": before,
        "last": last, "answer": answer, "there": there, "chosen": chosen,
    }  # fmt: skip
    return Layout(
        **{name: x.to(batch.token.device) for name, x in tensors.items()},
        rows=tuple(rows),
        prompt_lengths=tuple(len(ids) for ids in prompts),
        groups=tuple(g for g, _ in pieces),
    )


def lengths(batch: Trajectories) -> list[int]:
    """Tokens behind the prompt of each row.

    Raises UserError for real tokens that are not their row's first, and for a chosen token that is
    not there.
    """
    there, chosen = batch.there, batch.chosen
    holes = (there[:, 1:] & ~there[:, :-1]).any(1)
    if bool(holes.any()):
        row = int(holes.nonzero()[0, 0])
        raise UserError(
            f"row {row} of the batch has a hole: its real tokens must be its first ones; tokens "
            "that are read but not learned belong in it, and are not `chosen`"
        )
    absent = (chosen & ~there).any(1)
    if bool(absent.any()):
        row = int(absent.nonzero()[0, 0])
        raise UserError(f"row {row} of the batch has a chosen token where none is there")
    counts: list[int] = there.sum(1).tolist()
    return counts


def _groups(batch: Trajectories) -> list[Piece]:
    """Each prompt that is answered, with all of its answers, in the prompts' order."""
    rows_of: dict[int, list[int]] = {}
    for row, g in enumerate(batch.group.tolist()):
        rows_of.setdefault(g, []).append(row)
    return sorted(rows_of.items())


def micro_layouts(
    batch: Trajectories,
    *,
    pad_id: int,
    max_tokens: int,
    max_row: int | None = None,
    one_each: bool = False,
) -> Iterator[Layout]:
    """The batch in layouts of at most `max_tokens` places (a single row may exceed it).

    A row holds a prompt with as many of its answers as fit into `max_row` places (None: all), or
    with one of them where `one_each` is asked for. Rows are sorted by length and cut where padding
    and the cost of one more layout are least together.
    """
    length = lengths(batch)
    rows: list[tuple[int, Piece]] = []
    for g, answers in _groups(batch):
        num_prompt = len(batch.prompts[g].ids)
        piece: list[int] = []
        size = num_prompt
        for row in answers:
            over = max_row is not None and size + length[row] > max_row
            if piece and (over or one_each):
                rows.append((size, (g, piece)))
                piece, size = [], num_prompt
            piece.append(row)
            size += length[row]
        rows.append((size, (g, piece)))
    rows.sort(key=lambda sized: -sized[0])
    # Answers of one prompt in rows of their own had better meet in one layout than save padding:
    # a loss that must see them together costs a pass more where they do not.
    cost = max_tokens if one_each else _LAYOUT_COST
    for part in _parts([size for size, _ in rows], max_tokens, cost):
        yield pack(batch, [piece for _, piece in rows[part]], pad_id=pad_id, length=length)


_LAYOUT_COST = 24
"""Places that one more layout costs in overhead: 8 to 64 were tried on models of 6M and 135M
parameters, and differ little."""


def _parts(sizes: Sequence[int], max_tokens: int, layout_cost: int) -> list[slice]:
    """Rows of falling `sizes` cut into layouts so that all of them together cost least.

    A layout has its longest row's places for each of its rows, at most `max_tokens` unless it is
    one row. cost[e] = min over b of cost[b] + places(b, e) + layout_cost.
    """
    cost, begin = [0], [0]
    for end in range(1, len(sizes) + 1):
        options: list[tuple[int, int]] = []
        for b in range(end - 1, -1, -1):
            places = sizes[b] * (end - b)
            if options and places > max_tokens:
                break  # as do all that begin earlier, with longer rows and more of them
            options.append((cost[b] + places + layout_cost, b))
        least, first = min(options)
        cost.append(least)
        begin.append(first)
    parts, end = [], len(sizes)
    while end:
        parts.append(slice(begin[end], end))
        end = begin[end]
    return parts[::-1]
