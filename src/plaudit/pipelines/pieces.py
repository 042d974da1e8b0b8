"""Samples with the text of each token, so that a page can show them without a tokenizer.

An algorithm says ids, as it knows no letters; here, where the tokenizer is, they become the pieces of
text whose joint is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plaudit.records.events import Event, Rollout

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are not a whole letter yet."""


def with_pieces(events: Iterator[Event], codec: TextCodec) -> Iterator[Event]:
    """The same events; in samples that have `tokens`, `pieces` stand in their place."""
    for event in events:
        if isinstance(event, Rollout) and any("tokens" in s for s in event.samples):
            event = replace(event, samples=[_readable(s, codec) for s in event.samples])
        yield event


def _readable(sample: dict[str, Any], codec: TextCodec) -> dict[str, Any]:
    ids = sample.get("tokens")
    if ids is None:
        return sample
    rest = {name: value for name, value in sample.items() if name != "tokens"}
    return rest | {"pieces": pieces_of(ids, codec.tokenizer)}


def pieces_of(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds to those before it, special tokens by their names.

    A letter of several tokens is the last one's. One token before is decoded along, since some
    tokenizers drop the space in front of a first one.
    """
    pieces: list[str] = []
    done = start = 0  # `start`: where the last whole piece begins
    for end in range(1, len(ids) + 1):
        before, after = (tokenizer.decode(ids[start:k]) for k in (done, end))
        if after.endswith(BROKEN) and end < len(ids):
            pieces.append("")
            continue
        pieces.append(after[len(before) :])
        start, done = done, end
    return pieces
