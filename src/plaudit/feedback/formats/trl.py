"""The columns of TRL's datasets, which are ours, and the formats of others that give them.

    preference      prompt, chosen, rejected (margin)       implicit   chosen, rejected: whole conversations
    unpaired        prompt, completion, label               stepwise   prompt, completions, labels
    scores          prompt, completions, scores             rankings   prompt, completions, ranks
    sft, edits      what annotators wrote: prompt, completion; or with what it was before
    messages, text  the same as conversations, as texts     prompts    what was asked

A preference has no ties, an edit is not a vote between two answers that were shown: what a form cannot
say is counted. Prompts, texts and demonstrations say nothing about answers: they are not read back.
Source: huggingface/trl, docs/source/dataset_formats.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from plaudit.feedback.entries import Item, Segment, Vote, ranking_vote
from plaudit.feedback.formats.base import (
    SAID,
    CannotSay,
    Format,
    Judged,
    Reading,
    each_row,
    is_said,
    manner,
    number_or_none,
    said,
    unpacked,
)
from plaudit.feedback.formats.fields import answered, asked, list_of, need, plainest
from plaudit.feedback.formats.writing import by_rater, each_item, each_vote, two_answers
from plaudit.feedback.incoming import Said, judged_rows
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.walk import walk_items, walk_votes
from plaudit.records.columns import KINDS, rename_columns
from plaudit.records.datasets import as_kind
from plaudit.records.errors import UserError
from plaudit.records.formats_annotation import label_studio_rows
from plaudit.records.row_files import ENDINGS, without_apostrophe
from plaudit.records.rows import Row, Rows
from plaudit.records.turns import is_messages

FEEDBACK_KINDS = ("preference", "unpaired", "scored")


# --- reading -----------------------------------------------------------------------------------


def read_kinds(*kinds: str) -> Callable[[Reading], Iterator[Judged]]:
    """A reader of rows that have, or from a known format get, the columns of one of these kinds."""

    def read(reading: Reading) -> Iterator[Judged]:
        found: str | None = None
        for rows in reading.slices():
            named = rename_columns(rows, reading.columns) if reading.columns else rows
            plain, sayings = _without_said(named, reading)
            clean, kind = as_kind(plain, kinds=kinds if found is None else (found,))
            found = kind
            for note in clean.notes:
                reading.note(note)
            for one in judged_rows(clean, kind, reading.rater, sayings, reading.count):
                where, item, votes = one
                yield reading.judged(where, item, *votes)

    return read


def read_comparisons_of(reading: Reading) -> Iterator[Judged]:
    """Rows that are comparisons and nothing else, as a run reads its file of them."""
    for some in reading.slices():
        opened = label_studio_rows(some, may_be_none=True)
        if not opened:
            continue
        rows = rename_columns(opened, reading.columns) if reading.columns else opened
        plain, sayings = _without_said(rows, reading)
        clean, kind = as_kind(plain, kinds=("preference",))
        for note in clean.notes:
            reading.note(note)
        for where, item, votes in judged_rows(clean, kind, reading.rater, sayings, reading.count):
            yield reading.judged(where, item, *votes)


def _without_said(rows: Rows, reading: Reading) -> tuple[Rows, list[Said]]:
    """Rows without the columns `SAID` but the rater, where all have them; and what those say."""
    if not rows or not all(is_said(row) for row in rows):
        return rows, [Said()] * len(rows)
    texts = rows.only_texts
    made, sayings = [], []
    for index, row in enumerate(rows):
        if texts:
            row = {name: without_apostrophe(cell) for name, cell in row.items()}
        several = unpacked(row["seconds"])
        try:
            if isinstance(several, list):
                seconds: Any = [number_or_none(one, "seconds") for one in several]
                sayings.append(Said(None, seconds))
            else:
                ours = manner(row, 2, reading)
                sayings.append(Said(ours.shown, ours.seconds))
        except UserError as error:
            raise UserError(f"{rows.where(index)}: {error}") from None
        kept = {name: value for name, value in row.items() if name not in SAID[1:]}
        made.append(kept)
    return rows.having(made), sayings


def _ranking(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    texts, ranks = list_of(row, "completions"), list_of(row, "ranks")
    if len(texts) != len(ranks) or not all(type(rank) is int for rank in ranks):
        raise UserError("'ranks' must be a list of whole numbers, one for each of 'completions'")
    places = sorted(set(ranks))
    groups = [[n for n, rank in enumerate(ranks) if rank == place] for place in places]
    ours = manner(row, len(texts), reading)
    item = reading.item("ranking", need(row, "prompt"), [Segment(text) for text in texts])
    who = ours.rater or str(row.get("rater") or "")
    vote = ranking_vote(item.key, who, groups, shown=ours.shown, seconds=ours.seconds)
    yield reading.judged(where, item, vote)


def _items(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    """Answers that nobody has judged yet; `ask` in the columns says what is to be asked of them."""
    texts = list_of(row, "completions") if "completions" in row else _pair(row)
    models = row.get("models")
    if not isinstance(models, list) or len(models) != len(texts):
        models = [None] * len(texts)
    segments = [Segment(text, model=m or None) for text, m in zip(texts, models, strict=True)]
    columns = row.get("columns")
    if not isinstance(columns, dict):
        mine = ("prompt", "completions", "models", "columns", "answer_a", "answer_b", "key")
        columns = {name: value for name, value in row.items() if name not in mine}
    item = reading.item("item", need(row, "prompt"), segments, columns)
    if isinstance(row.get("key"), str):
        item = Item(row["key"], item.prompt, item.segments, item.columns)
    yield Judged(where, item, ())


def _pair(row: Row) -> list[Any]:
    return [need(row, "answer_a"), need(row, "answer_b")]


# --- writing -----------------------------------------------------------------------------------


def _preferences(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
    """Ties are left out; margins too, where not every pair has one."""
    decided = (
        vote
        for vote, *_ in walk_votes(store, rater=rater, kind="comparison")
        if vote.value["preference"] in "ab"
    )
    with_margin = all(vote.value.get("margin") is not None for vote in decided)

    def row(vote: Vote, item: Item) -> Row:
        a, b, winner = two_answers(vote)
        chosen, rejected = (a, b) if winner == "a" else (b, a)
        made: Row = {
            "prompt": item.prompt,
            "chosen": item.segments[chosen].text,
            "rejected": item.segments[rejected].text,
        }
        margin = vote.value.get("margin")
        if with_margin:
            made["margin"] = margin
        elif margin is not None:
            left_out["margins (not every pair has one)"] += 1
        return made | said(vote, (chosen, rejected))

    yield from each_vote(row, "comparison")(store, rater, left_out)


def _implicit(vote: Vote, item: Item) -> Row:
    a, b, winner = two_answers(vote)
    chosen, rejected = (a, b) if winner == "a" else (b, a)
    talks = [asked(item.prompt) + answered(item.segments[n].text) for n in (chosen, rejected)]
    return {"chosen": talks[0], "rejected": talks[1]} | said(vote, (chosen, rejected))


def _unpaired(vote: Vote, item: Item) -> Iterable[Row]:
    """The chosen true, the rejected and both of "both bad" false; scores of exactly 1 and 0 too."""

    def row(position: int, label: bool) -> Row:
        text = item.segments[position].text
        return {"prompt": item.prompt, "completion": text, "label": label} | said(vote, (position,))

    if vote.kind == "score":
        if vote.value["score"] not in (0, 1):
            raise CannotSay("scores other than 0 and 1")
        return [row(vote.value["segment"], bool(vote.value["score"]))]
    a, b, preference = vote.value["a"], vote.value["b"], vote.value["preference"]
    if preference == "tie":
        raise CannotSay("ties")
    return [row(a, preference == "a"), row(b, preference == "b")]


def _scores(item: Item, votes: Sequence[Vote], left_out: Counter[str]) -> Iterable[Row]:
    """One row for each rater, its lists in the order in which the scores were given."""
    for mine in by_rater(votes).values():
        places = [vote.value["segment"] for vote in mine]
        row: Row = {
            "prompt": item.prompt,
            "completions": [item.segments[place].text for place in places],
            "scores": [float(vote.value["score"]) for vote in mine],
        }
        yield row | _together(mine)


def _together(votes: Sequence[Vote]) -> Row:
    """The columns `SAID` of one rater's votes in one row: a list of what each vote says."""
    each = [said(vote, ()) for vote in votes]
    lists = {name: [one[name] for one in each] for name in SAID[2:]}
    return {"rater": votes[0].rater, "order_shown": None} | lists


def _stepwise(item: Item, votes: Sequence[Vote], left_out: Counter[str]) -> Iterable[Row]:
    """Where a rater gave every part of an answer 1 or 0."""
    for mine in by_rater(votes).values():
        given = {vote.value["segment"]: vote for vote in mine}
        if len(given) != len(item.segments) or any(
            vote.value["score"] not in (0, 1) for vote in given.values()
        ):
            left_out["scores that are not 1 or 0 for every part"] += len(mine)
            continue
        row: Row = {
            "prompt": item.prompt,
            "completions": [segment.text for segment in item.segments],
            "labels": [bool(given[place].value["score"]) for place in range(len(item.segments))],
        }
        yield row | _together([given[place] for place in range(len(item.segments))])


def _rankings(vote: Vote, item: Item) -> Row:
    groups = vote.value["ranking"]
    rank = {position: place for place, group in enumerate(groups, 1) for position in group}
    order = sorted(rank)
    row: Row = {
        "prompt": item.prompt,
        "completions": [item.segments[place].text for place in order],
        "ranks": [rank[place] for place in order],
    }
    return row | said(vote, order)


def _sft(vote: Vote, item: Item) -> Row:
    row: Row = {"prompt": item.prompt, "completion": _edited(vote, item)}
    return row | said(vote, (vote.value["segment"],))


def _edited(vote: Vote, item: Item) -> Any:
    """The corrected answer, in the form of the one that it corrects."""
    before = item.segments[vote.value["segment"]].text
    text = vote.value["text"]
    return text if isinstance(before, str) else [{"role": "assistant", "content": text}]


def _edits(vote: Vote, item: Item) -> Row:
    before = item.segments[vote.value["segment"]].text
    row: Row = {"prompt": item.prompt, "chosen": _edited(vote, item), "rejected": before}
    return row | said(vote, ())


def _messages(vote: Vote, item: Item) -> Row:
    talk = asked(item.prompt) + answered(_edited(vote, item))
    return {"messages": talk} | said(vote, (vote.value["segment"],))


def _texts(vote: Vote, item: Item) -> Row:
    prompt = plainest(asked(item.prompt), "user")
    if not isinstance(prompt, str):
        raise CannotSay("prompts of several turns")
    return {"text": f"{prompt}{vote.value['text']}"} | said(vote, (vote.value["segment"],))


def _prompts(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
    for item, _ in walk_items(store, rater=rater):
        yield {"prompt": item.prompt}


def _write_items(store: FeedbackStore, rater: str | None, left_out: Counter[str]) -> Iterator[Row]:
    for item, votes in walk_items(store, rater=rater):
        left_out["votes"] += len(votes)
        yield {
            "key": item.key,
            "prompt": item.prompt,
            "completions": [segment.text for segment in item.segments],
            "models": [segment.model for segment in item.segments],
            "columns": dict(item.columns),
        }


# --- the table ---------------------------------------------------------------------------------


def _has_messages(row: Row) -> bool:
    return (
        "prompt" not in row
        and is_messages(row["chosen"], "role")
        and is_messages(row["rejected"], "role")
    )


def _is_unjudged(row: Row) -> bool:
    return not {"labels", "scores", "ranks", "chosen", "label"} & row.keys()


def _form(name: str, words: str, kind: str, write: Any, keeps: str) -> Format:
    """A form whose columns are those of a kind of data, which it is known by."""
    return Format(
        name, words, KINDS[kind], lambda row: True, read_kinds(kind), write, keeps, ENDINGS
    )


def _unread(name: str, words: str, write: Any, keeps: str) -> Format:
    return Format(name, words, (), lambda row: False, None, write, keeps, ENDINGS)


FORMATS = (
    _form("preference", "comparisons (prompt, chosen, rejected)", "preference", _preferences,
          "comparisons with a winner, margins if all have one"),
    Format(
        "implicit", "pairs of whole conversations", ("chosen", "rejected"), _has_messages,
        read_kinds("preference"), each_vote(_implicit, "comparison"),
        "comparisons with a winner", (".jsonl", ".jsonl.gz", ".json", ".parquet"),
    ),
    _form("unpaired", "labels (prompt, completion, label)", "unpaired",
          each_vote(_unpaired, "comparison", "score"), "labels, and comparisons as two labels"),
    _form("scores", "scores (prompt, completions, scores)", "scored", each_item(_scores, "score"),
          "scores"),
    _form("stepwise", "labels of parts (prompt, completions, labels)", "labelled",
          each_item(_stepwise, "score"), "scores that are 1 or 0 for every part of an answer"),
    Format(
        "rankings", "rankings (prompt, completions, ranks)", ("prompt", "completions", "ranks"),
        lambda row: True, each_row(_ranking, "rankings"), each_vote(_rankings, "ranking"),
        "rankings with ties", (".jsonl", ".jsonl.gz", ".json", ".parquet"),
    ),
    Format(
        "items", "answers that nobody has judged (prompt, completions)", ("prompt", "completions"),
        _is_unjudged, each_row(_items, "answers to judge"), _write_items,
        "what is to be judged, without votes", (".jsonl", ".jsonl.gz", ".json"),
    ),
    _unread("sft", "demonstrations (prompt, completion)", each_vote(_sft, "edit"),
            "what annotators corrected, as demonstrations"),
    _form("edits", "corrections (prompt, chosen, rejected)", "preference",
          each_vote(_edits, "edit"), "what annotators corrected, preferred to what it was"),
    _unread("messages", "conversations (messages)", each_vote(_messages, "edit"),
            "what annotators corrected, as conversations"),
    _unread("text", "texts (text)", each_vote(_texts, "edit"),
            "what annotators corrected, as prompt and answer in one"),
    _unread("prompts", "prompts (prompt)", _prompts, "what was asked"),
)  # fmt: skip
