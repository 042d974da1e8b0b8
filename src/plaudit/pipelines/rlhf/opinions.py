"""From answers to opinions of them, and from opinions to what a reward model learns from.

Pairs of answers to one prompt become items of the feedback store; raters compare them
(`feedback/collect.py`); comparisons that stand become index pairs over a batch of answers. Comparisons of texts that nobody drew here
(imported ones) are tokenised once and join the batch.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plaudit.feedback.entries import (
    Comparison,
    Item,
    Segment,
)
from plaudit.models.answers import Answered
from plaudit.records.errors import UserError
from plaudit.records.pairs import Pairs
from plaudit.records.turns import answer_after, answer_text
from plaudit.records.types import Trajectories

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec


def pair_items(
    batch: Trajectories, *, pairs_per_prompt: int, split: str, model: str, seed: int
) -> list[Item]:
    """Pairs of different answers to each prompt, drawn without replacement, sides at random.

    An item's columns are those of its prompt's row. What the job itself needs to know of an answer,
    its row in `batch` and the `split` of its prompt, is in the segment's `extra`.
    """
    rows_of: dict[int, list[int]] = {}
    for row, g in enumerate(batch.group.tolist()):
        rows_of.setdefault(g, []).append(row)
    items = []
    for g, rows in rows_of.items():
        rng = np.random.default_rng((seed, 5, g))
        possible = [
            (a, b)
            for a, b in itertools.combinations(rows, 2)
            if batch.texts[a].strip() != batch.texts[b].strip()
            and batch.texts[a].strip()
            and batch.texts[b].strip()
        ]
        order = rng.permutation(len(possible))[:pairs_per_prompt]
        for k in sorted(order.tolist()):
            pair = possible[k] if rng.random() < 0.5 else possible[k][::-1]
            segments = tuple(
                Segment(batch.texts[row], model=model, extra={"split": split, "row": row})
                for row in pair
            )
            key = f"{split}-{g}-{min(pair)}-{max(pair)}"
            items.append(Item(key, batch.prompts[g].text, segments, batch.prompts[g].columns))
    return items


@dataclass(frozen=True)
class Opinions:
    """Answers, comparisons between them, and the prompt of each comparison."""

    batch: Trajectories
    pairs: Pairs

    def groups(self) -> list[int]:
        group = self.batch.group.tolist()
        return [group[row] for row in self.pairs.a]


def split_of(comparison: Comparison) -> str | None:
    """The split of the answers that `pair_items` paired; None for those from elsewhere."""
    both = (comparison.extra_a, comparison.extra_b)
    return both[0].get("split") if all({"split", "row"} <= extra.keys() for extra in both) else None


def opinions_on(batch: Trajectories, comparisons: Sequence[Comparison], *, split: str) -> Opinions:
    """Comparisons of rows of `batch`, all votes on a pair joined into one share."""
    tally: dict[tuple[int, int], list[float]] = {}
    for c in comparisons:
        if split_of(c) != split or c.preference == "both_bad":
            continue
        pair = (int(c.extra_a["row"]), int(c.extra_b["row"]))
        drawn = [batch.texts[row] if row < len(batch) else None for row in pair]
        if drawn != [c.a, c.b]:
            raise UserError(
                f"the feedback store compares answers that this run did not draw (item "
                f"{c.item_key!r}): give the run a store of its own"
            )
        tally.setdefault(pair, []).append({"a": 1.0, "b": 0.0, "tie": 0.5}[c.preference])
    shares = {pair: sum(votes) / len(votes) for pair, votes in tally.items()}
    return Opinions(
        batch,
        Pairs(tuple(a for a, _ in shares), tuple(b for _, b in shares), tuple(shares.values())),
    )


def opinions_of_texts(comparisons: Sequence[Comparison], codec: TextCodec) -> Opinions:
    """Comparisons of texts from elsewhere: each different answer is tokenised once.

    Answers to the same prompt form one group and stand side by side. Raises `UserError` where nothing
    is decided.
    """
    made = Answered(codec)
    cast: list[tuple[Comparison, str, str]] = []
    answers: dict[int, dict[str, Comparison]] = {}
    for c in comparisons:
        if c.preference == "both_bad":
            continue
        with _in_item(c.item_key):
            a, b = (answer_text(answer_after(c.prompt, text, "answer")) for text in (c.a, c.b))
            known = answers.setdefault(made.ask(c.prompt), {})
        for text in (a, b):
            known.setdefault(text, c)
        cast.append((c, a, b))
    if not cast:
        raise UserError("the feedback store holds no comparison that a reward model can learn from")
    for known in answers.values():
        for text, c in known.items():
            with _in_item(c.item_key):
                made.row(c.prompt, text)
    pairs = Pairs(
        tuple(made.row(c.prompt, a) for c, a, _ in cast),
        tuple(made.row(c.prompt, b) for c, _, b in cast),
        tuple({"a": 1.0, "b": 0.0, "tie": 0.5}[c.preference] for c, _, _ in cast),
    )
    return Opinions(made.batch(range(len(made.answers))), pairs)


@contextlib.contextmanager
def _in_item(key: str) -> Iterator[None]:
    """Says in which item of the store a text cannot be used."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the feedback store's item {key!r}: {error}") from error


def split_opinions(opinions: Opinions, *, share: float, seed: int) -> tuple[Opinions, Opinions]:
    """(training, held-out) opinions: whole prompts are held out, never single comparisons; none of
    them where the share is 0."""
    num = len(opinions.batch.prompts)
    held = held_out_prompts(num, share=share, seed=seed) if share else set()
    parts = []
    for wanted in (False, True):
        group = opinions.batch.group.tolist()
        rows = [row for row, g in enumerate(group) if (g in held) == wanted]
        parts.append(Opinions(opinions.batch.select(rows), opinions.pairs.among(rows)))
    return parts[0], parts[1]


def held_out_prompts(num_prompts: int, *, share: float, seed: int) -> set[int]:
    """Numbers of the prompts that are held out: two or more, since an interval needs two, or one of
    two prompts; UserError where none is left."""
    if num_prompts < 2:
        raise UserError(
            "comparisons of one prompt cannot be split into training and held-out prompts: "
            "give comparisons of at least 2 prompts",
            new_run=True,
        )
    order = np.random.default_rng((seed, 7)).permutation(num_prompts)
    return set(order[: max(min(2, num_prompts - 1), round(share * num_prompts))].tolist())
