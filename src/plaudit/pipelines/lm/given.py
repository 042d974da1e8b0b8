"""What a job learns from and what judges it: files read, refused, tokenised and split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from plaudit.models.text import TextCodec
from plaudit.pipelines.lm.config import DataKeys
from plaudit.pipelines.lm.data import (
    LeftOut,
    compared,
    examples,
    labelled,
    said_of_equal,
    said_of_long,
    split_examples,
)
from plaudit.pipelines.rlhf.opinions import Opinions, split_opinions
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError
from plaudit.records.rows import Rows
from plaudit.records.types import Trajectories

TEXTS = ("messages", "prompt-completion", "text")
"""Kinds of data that fine-tuning learns."""

PAIRS = ("preference",)
LABELS = ("unpaired",)

T = TypeVar("T")


@dataclass(frozen=True)
class Files:
    """The rows of a job's files, by what they are for: "data", and "held_out" where one is named."""

    rows: Mapping[str, Rows]
    kinds: Mapping[str, str]


def read_files(config: DataKeys, kinds: Sequence[str], note: Callable[[str], None]) -> Files:
    """Reads what the config names; `note` is told what the readers have to say."""
    paths = {"data": config.data}
    if config.held_out is not None:
        paths["held_out"] = config.held_out
    rows, found = {}, {}
    for use, path in paths.items():
        rows[use], found[use] = read_dataset(path, columns=config.columns, kinds=kinds)
        for said in rows[use].notes:
            note(said)
    return Files(rows, found)


def texts(
    config: DataKeys, files: Files, codec: TextCodec, note: Callable[[str], None]
) -> tuple[Trajectories, Trajectories | None]:
    """Conversations, wanted answers or plain texts: to learn from, and to judge by."""

    def read(use: str) -> tuple[Trajectories, LeftOut]:
        kind = files.kinds[use]
        return examples(files.rows[use], kind, codec, max_length=config.max_length)

    learn = _fitting(read, "data", files, note)
    if config.held_out is not None:
        return learn, _fitting(read, "held_out", files, note)
    if not _can_split(config, learn, note):
        return learn, None
    (learn, _), (judge, _) = split_examples(
        learn, {}, share=config.held_out_share, seed=config.seed
    )
    return learn, judge


def pairs(
    config: DataKeys, files: Files, codec: TextCodec, note: Callable[[str], None]
) -> tuple[Opinions, Opinions | None]:
    """Comparisons: to learn from, and to judge by."""

    def read(use: str) -> tuple[Opinions, LeftOut]:
        equal = said_of_equal(files.rows[use])
        if equal is not None:
            note(equal)
        return compared(files.rows[use], codec, max_length=config.max_length)

    learn = _fitting(read, "data", files, note)
    if config.held_out is not None:
        return learn, _fitting(read, "held_out", files, note)
    if not _can_split(config, learn.batch, note):
        return learn, None
    return split_opinions(learn, share=config.held_out_share, seed=config.seed)


def labels(
    config: DataKeys, files: Files, codec: TextCodec, note: Callable[[str], None]
) -> tuple[tuple[Trajectories, Tensor], tuple[Trajectories, Tensor] | None]:
    """Answers with whether they are good: to learn from, and to judge by."""

    def read(use: str) -> tuple[tuple[Trajectories, Tensor], LeftOut]:
        batch, is_good, left_out = labelled(files.rows[use], codec, max_length=config.max_length)
        return (batch, is_good), left_out

    learn = _fitting(read, "data", files, note)
    if bool(learn[1].all()) or not bool(learn[1].any()):
        what = "good" if bool(learn[1].all()) else "bad"
        raise UserError(
            f"{files.rows['data'].source}: every answer is called {what}, so there is nothing to "
            "tell apart: give labels of both kinds"
        )
    if config.held_out is not None:
        return learn, _fitting(read, "held_out", files, note)
    if not _can_split(config, learn[0], note):
        return learn, None
    (mine, own), (judge, theirs) = split_examples(
        learn[0], {"is_good": learn[1]}, share=config.held_out_share, seed=config.seed
    )
    return (mine, own["is_good"]), (judge, theirs["is_good"])


def _fitting(
    read: Callable[[str], tuple[T, LeftOut]],
    use: str,
    files: Files,
    note: Callable[[str], None],
) -> T:
    """What was read, and a word on rows that were too long."""
    found, left_out = read(use)
    said = said_of_long(files.rows[use], left_out)
    if said is not None:
        note(said)
    return found


def _can_split(config: DataKeys, batch: Trajectories, note: Callable[[str], None]) -> bool:
    """Whether some prompts can be held out; says why not where they should have been."""
    if not config.held_out_share:
        return False
    if len(batch.prompts) < 2:
        note("All rows have one prompt: nothing is held out, so nothing is judged")
        return False
    return True
