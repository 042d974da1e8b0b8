"""A frozen trunk's outputs for what is read again and again, kept by what was read.

    states.put("rollout", batch, prompt_hidden, answer_hidden)
    states.find(layout, batch)        [R, L, H] where all of the layout is known, else None
    states.drop("rollout")

They belong to one trunk and never travel with a batch: another trunk, or the same model cut
elsewhere, has states of its own. A state is found by the token ids of prompt and answer, whatever
batch these are in now. Rows keep their own lengths, so that one long answer costs no other row.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from plaudit.models.backbone import gather_places
from plaudit.models.layout import Layout, lengths
from plaudit.records.types import Trajectories


@dataclass
class _Block:
    """States [n, H] of prompts, and of answers behind their prompts, by what was read."""

    prompts: dict[bytes, Tensor] = field(default_factory=dict)
    answers: dict[bytes, Tensor] = field(default_factory=dict)


class TrunkStates:
    """Blocks of states by name; a name put again replaces what it held."""

    def __init__(self) -> None:
        self._blocks: dict[str, _Block] = {}

    def put(
        self, name: str, batch: Trajectories, prompt_hidden: Tensor, answer_hidden: Tensor
    ) -> None:
        """Keep the states of a batch: of its prompts [P, L, H], right-padded, and of its answers'
        tokens [B, T, H]. Views, not copies."""
        block = _Block()
        for g, prompt in enumerate(batch.prompts):
            block.prompts[_prompt_key(batch, g)] = prompt_hidden[g, : len(prompt.ids)]
        for row, n in enumerate(lengths(batch)):
            block.answers[_answer_key(batch, row)] = answer_hidden[row, :n]
        self._blocks[name] = block

    def put_layout(self, name: str, batch: Trajectories, layout: Layout, hidden: Tensor) -> None:
        """Add the states `hidden` [R, L, H] of one layout of the batch to the block of that name."""
        block = self._blocks.setdefault(name, _Block())
        for r, (g, n) in enumerate(zip(layout.groups, layout.prompt_lengths, strict=True)):
            block.prompts.setdefault(_prompt_key(batch, g), hidden[r, :n].clone())
        for i, row in enumerate(layout.rows):
            places = layout.own[i][layout.there[i]]
            block.answers[_answer_key(batch, row)] = gather_places(hidden, places)

    def drop(self, *names: str) -> None:
        """Forget the blocks of these names, where there are any."""
        for name in names:
            self._blocks.pop(name, None)

    def clear(self) -> None:
        """Forget all."""
        self._blocks.clear()

    def find(self, layout: Layout, batch: Trajectories) -> Tensor | None:
        """The states of every place of the layout, 0 on padding; None unless all are known."""
        if not self._blocks:
            return None
        known = [self._row(batch, g) for g in layout.groups]
        own = [self._answer(batch, row) for row in layout.rows]
        if any(x is None for x in known) or any(x is None for x in own):
            return None
        some = next(x for x in known if x is not None)
        num_rows, num_places = layout.token.shape
        hidden = some.new_zeros((num_rows, num_places, some.shape[-1]))
        for r, states in enumerate(known):
            assert states is not None
            hidden[r, : len(states)] = states
        flat = hidden.view(-1, hidden.shape[-1])
        flat[layout.own[layout.there]] = torch.cat([x for x in own if x is not None])
        return hidden

    def arrays(self, batch: Trajectories) -> dict[str, Tensor]:
        """What `put` was given for these answers, padded alike, for keeping on disk; {} if not all
        of it is known."""
        prompts = [self._row(batch, g) for g in range(len(batch.prompts))]
        answers = [self._answer(batch, row) for row in range(len(batch))]
        if any(x is None for x in (*prompts, *answers)):
            return {}
        padded = torch.nn.utils.rnn.pad_sequence
        of_answers = padded([x for x in answers if x is not None], batch_first=True)
        short = batch.there.shape[1] - of_answers.shape[1]
        return {
            "prompt_hidden": padded([x for x in prompts if x is not None], batch_first=True),
            "answer_hidden": torch.nn.functional.pad(of_answers, (0, 0, 0, short)),
        }

    def _row(self, batch: Trajectories, g: int) -> Tensor | None:
        key = _prompt_key(batch, g)
        return next((b.prompts[key] for b in self._blocks.values() if key in b.prompts), None)

    def _answer(self, batch: Trajectories, row: int) -> Tensor | None:
        key = _answer_key(batch, row)
        return next((b.answers[key] for b in self._blocks.values() if key in b.answers), None)


def _prompt_key(batch: Trajectories, g: int) -> bytes:
    return _digest(torch.tensor(batch.prompts[g].ids, dtype=torch.int64))


def _answer_key(batch: Trajectories, row: int) -> bytes:
    ids = batch.token[row][batch.there[row]].cpu()
    return _prompt_key(batch, int(batch.group[row])) + _digest(ids)


def _digest(ids: Tensor) -> bytes:
    return hashlib.blake2b(ids.numpy().tobytes(), digest_size=16).digest()
