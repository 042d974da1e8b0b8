"""Label Studio's tasks with pairwise annotations, as its JSON export has them.

An annotation says left or right; which fields of the task stood there is said by the labelling
configuration alone, so it is needed, or the names of the fields. A cancelled annotation is a skip.
An empty result is no answer, which is also how a tie would look: a tie cannot be stored there, and is
left out when writing. Source: HumanSignal/label-studio, docs/source/guide/export.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from xml.etree import ElementTree

from plaudit.feedback.entries import Item, Segment, Vote, comparison_vote, skip_vote
from plaudit.feedback.formats.base import (
    CannotSay,
    Format,
    Judged,
    Reading,
    digest,
    each_row,
    manner,
    said,
)
from plaudit.feedback.formats.fields import list_of, number_of, object_of, one_text, text_of
from plaudit.feedback.formats.writing import REASONS, each_item, sides
from plaudit.records.errors import UserError, nearest
from plaudit.records.rows import Row, brief, listed_names


class Fields(NamedTuple):
    """Which fields of a task are the prompt and the two answers."""

    prompt: str
    left: str
    right: str


def fields_of(reading: Reading, data: Mapping[str, Any]) -> Fields:
    """The fields as they were named, else as the configuration has them, else by our own names."""
    found = dict(zip(Fields._fields, Fields._fields, strict=True))
    known = _of_config(reading.config, data) if reading.config is not None else {}
    known |= {name: old for name, old in reading.columns.items() if name in found}
    if not known and not all(name in data for name in found):
        raise UserError(
            f"which of the task's fields ({listed_names(data)}) stood on the left and on the right "
            "stands only in the labelling configuration; give it by --config FILE, or say "
            "--columns prompt=FIELD left=FIELD right=FIELD"
        )
    found |= known
    for name, old in found.items():
        if old not in data:
            hint = nearest(old, data) or f"; its fields are {listed_names(data)}"
            raise UserError(f"the task has no field {old!r} for {name}{hint}")
    return Fields(**found)


def _of_config(config: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Left and right by the Pairwise tag; the prompt where one other text alone is shown."""
    if "<!" in re.sub(r"<!--.*?-->", "", config, flags=re.DOTALL):
        raise UserError(
            "the labelling configuration has a DOCTYPE or entities, expected tags alone"
        )
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise UserError(f"the labelling configuration is not XML ({error})") from None
    pairwise = list(root.iter("Pairwise"))
    if len(pairwise) != 1:
        raise UserError(
            f"the labelling configuration has {len(pairwise)} tags Pairwise, expected one"
        )
    shown = {
        tag.get("name", f"?{n}"): tag.get("value", "").removeprefix("$")
        for n, tag in enumerate(root.iter())
        if tag.get("value", "").startswith("$")
    }
    names = [name.strip() for name in pairwise[0].get("toName", "").split(",")]
    if len(names) != 2 or not all(name in shown for name in names):
        raise UserError(
            f"Pairwise of the labelling configuration is of {', '.join(names)}, expected the names of "
            f"two tags that show a field (there are {listed_names(shown)})"
        )
    left, right = (shown[name] for name in names)
    others = [value for value in dict.fromkeys(shown.values()) if value not in (left, right)]
    texts = [value for value in others if isinstance(data.get(value), str)]
    prompt = {"prompt": texts[0]} if len(texts) == 1 else {}
    return {"left": left, "right": right, **prompt}


# --- reading -----------------------------------------------------------------------------------


def _task(row: Row, reading: Reading, where: str) -> Iterator[Judged]:
    data = object_of(row, "data")
    names = fields_of(reading, data)
    models = (data.get("left_model") or None, data.get("right_model") or None)
    sides_ = [
        Segment(text_of(data, name, "data"), model=model)
        for name, model in zip(names[1:], models, strict=True)
    ]
    known = {*names, "left_model", "right_model"}
    kept = {name: value for name, value in data.items() if name not in known}
    item = reading.item("label-studio", text_of(data, names.prompt, "data"), sides_, kept)
    votes = []
    for annotation in list_of(row, "annotations"):
        if not isinstance(annotation, Mapping):
            raise UserError(f"an annotation is {brief(annotation)}, expected an object")
        vote = _vote(annotation, item, reading)
        if vote is not None:
            votes.append(vote)
    yield reading.judged(where, item, *votes)


def _vote(annotation: Mapping[str, Any], item: Item, reading: Reading) -> Any:
    ours = manner(annotation, 2, reading)
    who = ours.rater or _name(annotation.get("completed_by"))
    seconds = annotation.get("lead_time")
    seconds = None if seconds is None else number_of(seconds, "lead_time")
    time = _time(annotation.get("created_at"))
    if annotation.get("was_cancelled"):
        return skip_vote(item.key, who, seconds=seconds, time=time)
    results = list_of(annotation, "result", "an annotation")
    types = sorted({str(one.get("type")) for one in results if isinstance(one, Mapping)})
    if len(results) > 1 or types not in ([], ["pairwise"]):
        raise UserError(
            f"an annotation holds {len(results)} answers of type {listed_names(types)}, expected one "
            "of type pairwise"
        )
    if not results:
        reading.left_out["annotations without an answer (a tie looks the same)"] += 1
        return None
    selected = object_of(results[0], "value", "an answer").get("selected")
    if selected not in ("left", "right"):
        raise UserError(f"an annotation selects {brief(selected)}, expected left or right")
    order = ours.shown if ours.rater else (0, 1)
    shown = None if order is None else "ab" if order == (0, 1) else "ba"
    said_ = "a" if selected == "left" else "b"
    return comparison_vote(item.key, who, said_, order_shown=shown, seconds=seconds, time=time)


def _name(who: Any) -> str:
    """Who annotated: an id, or an object with an email or an id."""
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return "" if who is None else str(who)


def _time(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


# --- writing -----------------------------------------------------------------------------------


def _write(item: Item, votes: Sequence[Vote], left_out: Counter[str]) -> Iterable[Row]:
    """A task for each pair of answers that was compared; a skip goes with the first."""
    prompt = one_text(item.prompt, "prompts")
    pairs: dict[tuple[int, int], list[Row]] = {}
    first = (0, 1)
    for vote in votes:
        if vote.kind == "skip":
            if len(item.segments) != 2:
                left_out["skips of items that are not pairs"] += 1
                continue
            pairs.setdefault(first, []).append(_annotation(vote, first, None))
            continue
        a, b, winner = sides(vote)
        if winner in REASONS:
            left_out[f"{REASONS[winner]} (Label Studio cannot store them)"] += 1
            continue
        pairs.setdefault((a, b), []).append(_annotation(vote, (a, b), winner))
    for (a, b), given in pairs.items():
        left, right = item.segments[a], item.segments[b]
        try:
            data = {
                "prompt": prompt,
                "left": one_text(left.text, "answers"),
                "right": one_text(right.text, "answers"),
            }
        except CannotSay as reason:
            left_out[str(reason)] += len(given)
            continue
        if left.model or right.model:
            data |= {"left_model": left.model or "", "right_model": right.model or ""}
        yield {
            "id": int(digest([item.key, a, b])[:8], 16),
            "data": data,
            "annotations": given,
            "predictions": [],
        }


def _annotation(vote: Vote, places: tuple[int, int], winner: str | None) -> Row:
    selected = {"a": "left", "b": "right"}
    result = [] if winner is None else [
        {
            "id": f"vote-{vote.id}",
            "from_name": "preference",
            "to_name": "left,right",
            "type": "pairwise",
            "value": {"selected": selected[winner]},
        }
    ]  # fmt: skip
    return {
        "id": vote.id,
        "completed_by": vote.rater,
        "result": result,
        "was_cancelled": winner is None,
        "ground_truth": False,
        "created_at": datetime.fromtimestamp(vote.time, UTC).isoformat(),
        "lead_time": vote.seconds,
    } | said(vote, places)


def _is_task(row: Row) -> bool:
    annotations = row["annotations"]
    return (
        isinstance(row["data"], Mapping)
        and isinstance(annotations, list)
        and all(isinstance(a, Mapping) and isinstance(a.get("result"), list) for a in annotations)
    )


FORMATS = (
    Format(
        "label-studio",
        "Label Studio's tasks",
        ("data", "annotations"),
        _is_task,
        each_row(_task, "Label Studio's tasks"),
        each_item(_write, "comparison", "skip"),
        "comparisons with a winner, skips, who, when, how long; a tie cannot be stored there",
        (".json", ".json.gz", ".jsonl"),
    ),
)
