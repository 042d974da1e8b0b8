"""OpenAssistant's conversations, as trees or as messages: replies ranked among their siblings.

The ranked replies to one message are an item: its prompt is the path to that message, and the ranks
(0 is best, equal ones tie) are a ranking. Who ranked is not said, ranks being of many people at once.
Deleted messages, replies without a rank, and replies of people (role prompter) are left out. A file
of messages may have them in any order: what is needed of them is kept on disk meanwhile.
Source: LAION-AI/Open-Assistant, oasst1's data card.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from plaudit.feedback.entries import Item, Segment, Vote, ranking_vote
from plaudit.feedback.formats.base import (
    CannotSay,
    Format,
    Judged,
    Reading,
    digest,
    each_row,
    manner,
    refusal,
    said,
)
from plaudit.feedback.formats.fields import asked, one_of, one_text, plainest, text_of
from plaudit.feedback.formats.spool import Kept
from plaudit.feedback.formats.writing import REASONS, each_vote, sides
from plaudit.records.errors import UserError
from plaudit.records.rows import Row, brief
from plaudit.records.types import Message

_ROLES = {"prompter": "user", "assistant": "assistant", "system": "system"}
_KEPT = ("message_id", "user_id", "review_count", "labels")
_ENDINGS = (".jsonl.gz", ".jsonl", ".json", ".json.gz")


def _message(one: Mapping[str, Any]) -> Message:
    role = one_of(one.get("role"), _ROLES, "role")
    return {"role": _ROLES[role], "content": text_of(one, "text")}


def _replies(
    path: Sequence[Mapping[str, Any]],
    replies: Iterable[Mapping[str, Any]],
    reading: Reading,
    where: str,
) -> Iterator[Judged]:
    """The item of ranked replies to the last message of `path`, where there are two."""
    mine = [one for one in replies if one.get("role") == "assistant" and not one.get("deleted")]
    ranked = [one for one in mine if one.get("rank") is not None]
    reading.left_out["replies without a rank"] += len(mine) - len(ranked)
    if len(ranked) < 2:
        reading.left_out["replies that were ranked alone"] += len(ranked)
        return
    segments = []
    for one in ranked:
        rank = one["rank"]
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise UserError(f"'rank' is {brief(rank)}, expected a whole number from 0")
        extra = {name: one[name] for name in _KEPT if one.get(name) is not None}
        ours = {} if isinstance(one.get("plaudit"), Mapping) else extra
        model = one.get("model_name") or None
        segments.append(Segment(text_of(one, "text"), model=model, extra=ours))
    places = sorted({one["rank"] for one in ranked})
    groups = [[n for n, one in enumerate(ranked) if one["rank"] == place] for place in places]
    prompt = plainest([_message(one) for one in path], "user")
    lang = {"lang": path[0]["lang"]} if path[0].get("lang") else {}
    item = reading.item("oasst", prompt, segments, lang)
    note = ranked[0].get("plaudit")
    ours_ = manner(note if isinstance(note, Mapping) else None, len(ranked), reading)
    vote = ranking_vote(item.key, ours_.rater, groups, shown=ours_.shown, seconds=ours_.seconds)
    yield reading.judged(where, item, vote)


def _tree(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    """Down the tree, one message after the other; a stack, since trees may be deep."""
    stack: list[tuple[list[Any], Any]] = [([], row["prompt"])]
    while stack:
        above, one = stack.pop()
        if not isinstance(one, Mapping):
            raise UserError(f"a message is {brief(one)}, expected an object")
        replies = one.get("replies") or []
        if not isinstance(replies, list):
            raise UserError(f"'replies' is {brief(replies)}, expected a list")
        if one.get("deleted"):
            continue
        path = [*above, {name: one.get(name) for name in ("role", "text", "lang")}]
        yield from _replies(path, replies, reading, where)
        stack += [(path, reply) for reply in reversed(replies)]


def _messages(reading: Reading) -> Iterator[Judged]:
    kept, place, where = Kept(), 0, str(reading.path)
    for rows in reading.slices():
        for index, row in enumerate(rows):
            where = rows.where(index)
            name, parent = row.get("message_id"), row.get("parent_id")
            if not isinstance(name, str) or not isinstance(parent, str | None):
                raise UserError(f"{where}: 'message_id' and 'parent_id' must be texts")
            place += 1
            known = kept.add(name, {**row, "where": where}, place=place, family=parent)
            if known["where"] != where:
                raise UserError(f"{where}: message {name!r} is there already ({known['where']})")
    for parent in kept.families():
        replies = kept.of_family(parent)
        where = replies[0]["where"]
        try:
            path = _path(kept, parent, where)
            if path is not None:
                yield from _replies(path, replies, reading, where)
        except (UserError, KeyError, TypeError, ValueError) as error:
            raise refusal(where, error, "OpenAssistant's messages") from None


def _path(kept: Kept, name: str, where: str) -> list[Any] | None:
    """The messages from the first to this one; None below a deleted one."""
    path: list[Any] = []
    seen = set()
    wanted: str | None = name
    while wanted is not None:
        one = kept.get(wanted)
        if one is None or wanted in seen:
            wrong = "answers itself" if wanted in seen else "is not in the file"
            raise UserError(f"{where}: its 'parent_id' leads to {wanted!r}, which {wrong}")
        if one.get("deleted"):
            return None
        seen.add(wanted)
        path.insert(0, one)
        wanted = one["parent_id"]
    return path


# --- writing -----------------------------------------------------------------------------------


def _ranked(vote: Vote) -> list[list[int]]:
    """A ranking's groups, best first; a comparison as one of two."""
    if vote.kind == "ranking":
        return [list(group) for group in vote.value["ranking"]]
    a, b, winner = sides(vote)
    if winner == "both_bad":
        raise CannotSay(REASONS[winner])
    return {"a": [[a], [b]], "b": [[b], [a]], "tie": [[a, b]]}[winner]


def _written(vote: Vote, item: Item) -> list[Row]:
    """The messages of one vote: the prompt's turns, then the ranked replies."""
    groups = _ranked(vote)
    rank = {position: place for place, group in enumerate(groups) for position in group}
    order = sorted(rank)
    tree = digest([item.key, vote.key])
    roles = {theirs: ours for ours, theirs in _ROLES.items()}
    rows: list[Row] = []

    def add(role: str, text: str, **more: Any) -> str:
        name = f"{tree}-{len(rows)}"
        rows.append(
            {
                "message_id": name,
                "parent_id": more.pop("parent"),
                "user_id": more.pop("user", None),
                "text": text,
                "role": roles[role],
                "lang": item.columns.get("lang", "en"),
                "review_count": 0,
                "review_result": True,
                "deleted": False,
                "rank": more.pop("rank", None),
                "synthetic": role == "assistant",
                "model_name": more.pop("model", None),
                "message_tree_id": f"{tree}-0",
                "tree_state": "ready_for_export",
                **more,
            }
        )
        return name

    parent = None
    for turn in asked(item.prompt):
        if turn["role"] not in roles:
            raise CannotSay(f"prompts with turns of {turn['role']!r}")
        parent = add(turn["role"], turn["content"], parent=parent)
    who = said(vote, order)
    for position in order:
        segment = item.segments[position]
        text = one_text(segment.text, "answers")
        add("assistant", text, parent=parent, rank=rank[position], model=segment.model, plaudit=who)
    return rows


def _write_tree(vote: Vote, item: Item) -> Row:
    rows = _written(vote, item)
    top = rows[0]
    by_name = {row["message_id"]: row for row in rows}
    for row in rows[1:]:
        by_name[row["parent_id"]].setdefault("replies", []).append(row)
    return {
        "message_tree_id": top["message_tree_id"],
        "tree_state": top["tree_state"],
        "prompt": top,
    }


_WHAT = "rankings and comparisons with ties, models; both bad cannot be said"

FORMATS = (
    Format(
        "oasst-trees",
        "OpenAssistant's trees",
        ("message_tree_id", "prompt"),
        lambda row: isinstance(row["prompt"], Mapping),
        each_row(_tree, "OpenAssistant's trees"),
        each_vote(_write_tree, "ranking", "comparison"),
        _WHAT,
        _ENDINGS,
    ),
    Format(
        "oasst-messages",
        "OpenAssistant's messages",
        ("message_id", "parent_id", "text", "role"),
        lambda row: True,
        _messages,
        each_vote(_written, "ranking", "comparison"),
        _WHAT,
        _ENDINGS,
    ),
)
