"""Conversations drawn turn by turn, going on from what has been read already.

    talk = Conversations(sampler, prompts, num_answers=2)
    drawn = talk.draw(sampling, seed=0)          the next turn of every row that is still open
    talk.go_on({0: ids, 3: ids})                 what others said to rows 0 and 3; the rest are done

A turn's tokens are never encoded again: what was drawn stays as it was drawn, and the keys and
values of everything that was read stay where they are. The last token of a turn is read with what
follows it, so each is read once. Where a decoder cannot give up its keys and values row by row (a
sliding window's), the ids of the whole conversation are read again instead.
The first turn draws what `Sampler.generate` draws from the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plaudit.models.sampling.draw import uniforms
from plaudit.models.sampling.sampler import Sampled, Sheet
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling

if TYPE_CHECKING:
    from plaudit.models.sampling.sampler import Sampler


class Conversations:
    """Rows that go on, `num_answers` of each prompt; row r begins with prompt r // num_answers.

    A row is the ids read and drawn so far, `ids[r]`. Raises UserError as `Sampler.generate` does.
    """

    def __init__(
        self, sampler: Sampler, prompts: Sequence[Sequence[int]], *, num_answers: int
    ) -> None:
        self.sampler = sampler
        self.ids = [list(p) for p in prompts for _ in range(num_answers)]
        self.open = list(range(len(self.ids)))
        self._prompts = [list(p) for p in prompts]
        self._group = [row // num_answers for row in self.open]
        self._prefix: Any = None
        self._turn = 0

    @torch.no_grad()
    def draw(self, sampling: Sampling, *, seed: int) -> Sampled:
        """The next turn of the open rows, in their order."""
        context = getattr(self.sampler.model.config, "max_position_embeddings", None)
        longest = max(len(self.ids[row]) for row in self.open)
        if context is not None and longest + sampling.max_new_tokens > context:
            raise UserError(
                f"a conversation has {longest} tokens and max_new_tokens is "
                f"{sampling.max_new_tokens}, together more than the model's context of {context}"
            )
        decoder = self.sampler.decoder
        with self.sampler.drawing():
            if self._prefix is None:
                self._prefix = decoder.prefill(self._prompts)
            answers = decoder.start(self._prefix, self._group, sampling.max_new_tokens)
            group = torch.tensor(self._group, device=self._prefix.logits.device)
            out = Sheet(self.sampler, len(self.open), sampling, keeps_hidden=False)
            u = uniforms(_turn_seed(seed, self._turn), self.open, sampling.max_new_tokens)
            rows = torch.arange(len(self.open))
            # Rows stay although they are done: others will say something to them.
            self.sampler.answer(
                answers, self._prefix.logits[group], rows, u, sampling, out, drops=False
            )
        drawn = out.finished(None)
        self._answers, self._turn = answers, self._turn + 1
        counts = drawn.mask.sum(1).tolist()
        for row, ids, n in zip(self.open, drawn.answer.tolist(), counts, strict=True):
            self.ids[row] += ids[:n]
        self._read = [n - 1 for n in counts]  # the last token drawn has not been read
        return drawn

    @torch.no_grad()
    def go_on(self, said: Mapping[int, Sequence[int]]) -> None:
        """Read what others said to the given rows, at least one token each; other rows close."""
        kept = [i for i, row in enumerate(self.open) if row in said]
        last = {row: self.ids[row][-1] for row in said}
        for row, ids in said.items():
            self.ids[row] += list(ids)
        decoder = self.sampler.decoder
        index = torch.tensor(kept, dtype=torch.long)
        with self.sampler.drawing():
            prefix = self._answers.as_prefix(index, [self._read[i] for i in kept])
            self.open = [self.open[i] for i in kept]
            if prefix is None:
                self._prefix = decoder.prefill([self.ids[row] for row in self.open])
            else:
                new = [[last[row], *said[row]] for row in self.open]
                self._prefix = decoder.extend(prefix, new)
        self._group = list(range(len(self.open)))


def _turn_seed(seed: int, turn: int) -> int:
    """Of the first turn the seed itself; of later ones a number of its own."""
    if turn == 0:
        return seed
    return int(np.random.SeedSequence((seed, turn)).generate_state(1, np.uint64)[0])
