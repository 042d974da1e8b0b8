"""What annotation tools and public archives export: Label Studio's comparisons, and those only named.

Label Studio's export says left or right, but which fields of a task were shown there stands in its
labelling configuration alone, so the fields are named by `--columns prompt=... left=... right=...`.
Cancelled annotations and those without an answer are no votes: they are left out and counted.
Sources: humansignal/label-studio, docs/source/guide/export.md; argilla-io/argilla, records/_io.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from plaudit.records.errors import UserError
from plaudit.records.rows import Row, Rows, brief, listed_names

SELECTED = "label_studio.selected"
RATER = "label_studio.rater"


def label_studio_rows(rows: Rows, *, may_be_none: bool = False) -> Rows:
    """One row for each answer of an export: the task's fields, what was selected and by whom."""
    if not _is_task(rows[0]):
        return rows
    made: list[Row] = []
    numbers: list[int] = []
    left_out: Counter[str] = Counter()
    for index, task in enumerate(rows):
        if not _is_task(task):
            raise UserError(f"{rows.where(index)} has no data and annotations, as a task has")
        for annotation in task["annotations"]:
            if annotation.get("was_cancelled"):
                left_out["cancelled"] += 1
                continue
            answers = _answers(annotation, rows.where(index))
            if not answers:
                left_out["without an answer"] += 1
                continue
            who = annotation.get("completed_by")
            said = {SELECTED: answers[0]} | ({} if who is None else {RATER: _name(who)})
            made.append(dict(task["data"]) | said)
            numbers.append(rows.numbers[index])
    if not made and not may_be_none:
        raise UserError(f"{rows.source}: this Label Studio export holds no finished comparison")
    counted = " and ".join(f"{num} {reason}" for reason, num in left_out.items())
    note = f"{rows.source}: annotations left out: {counted}" if counted else None
    return rows.having(made, note=note, numbers=numbers)


def label_studio_pair(row: Row) -> Row:
    """A comparison whose fields are called prompt, left and right."""
    selected = row[SELECTED]
    if selected not in ("left", "right"):
        raise UserError(f"the annotation selects {brief(selected)}, expected left or right")
    other = "right" if selected == "left" else "left"
    made: Row = {"prompt": row["prompt"], "chosen": row[selected], "rejected": row[other]}
    return made | ({"rater": row[RATER]} if RATER in row else {})


def _is_task(row: Row) -> bool:
    annotations = row.get("annotations")
    return (
        isinstance(row.get("data"), Mapping)
        and isinstance(annotations, list)
        and all(isinstance(a, Mapping) and isinstance(a.get("result"), list) for a in annotations)
    )


def _answers(annotation: Mapping[str, Any], where: str) -> list[Any]:
    """What an annotation's pairwise result selects: nothing or one thing."""
    results = [one if isinstance(one, Mapping) else {} for one in annotation["result"]]
    types = sorted({str(one.get("type")) for one in results})
    values = [one.get("value") for one in results]
    if len(values) > 1 or types not in ([], ["pairwise"]):
        raise UserError(
            f"{where}: this Label Studio annotation holds {len(values)} answers of type "
            f"{listed_names(types)}, expected one of type pairwise; write its answers as rows of "
            "prompt, chosen, rejected"
        )
    return [value.get("selected") if isinstance(value, Mapping) else None for value in values]


def _name(who: Any) -> str:
    """Who annotated: an id, or an object with an email or an id."""
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id")
    return str(who)


# --- formats that are named, and what to do with them --------------------------------------


def _is_unnamed_comparison(row: Row) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("prompt", "left", "right"))
    return SELECTED in row and not texts


def _name_the_fields(row: Row) -> str:
    fields = listed_names(n for n, v in row.items() if isinstance(v, str) and n != SELECTED)
    return (
        f"which of its fields ({fields.replace(f', {RATER}', '')}) were shown on the left and on the "
        "right stands only in the labelling configuration; say it by --columns prompt=FIELD "
        "left=FIELD right=FIELD"
    )


def _as_columns(row: Row) -> str:
    return f"write the fields of its data ({listed_names(row['data'])}) as columns of rows"


def _is_label_studio_flat(row: Row) -> bool:
    return {"annotation_id", "annotator", "lead_time"} <= row.keys()


def _export_whole(row: Row) -> str:
    return "export the project as JSON (not JSON-MIN, CSV or TSV)"


def _argilla_questions(row: Row) -> list[str]:
    """Names of questions: NAME.responses beside NAME.responses.status, or a list of responses."""
    flat = [n.removesuffix(".responses") for n in row if n.endswith(".responses")]
    flat = [n for n in flat if {f"{n}.responses.status", f"{n}.responses.users"} & row.keys()]
    listed = [
        name
        for name, value in row.items()
        if isinstance(value, list)
        and value
        and all(isinstance(one, Mapping) and {"value", "status"} <= one.keys() for one in value)
    ]
    return flat or listed


_IMPORT = "take it in by `plaudit feedback import` and export it as preference, or "


def _from_argilla(row: Row) -> str:
    return (
        f"{_IMPORT}what was compared stands in the settings of its questions ({listed_names(_argilla_questions(row))}); write "
        "every response whose status is submitted as a row of prompt, chosen, rejected, rater"
    )


def _is_arena(row: Row) -> bool:
    return {"model_a", "model_b", "conversation_a", "conversation_b"} <= row.keys() and (
        "winner" in row or "winner_tie" in row
    )


def _from_arena(row: Row) -> str:
    return (
        f"{_IMPORT}write every battle that was won as a row of chosen and rejected, the winner's conversation "
        "and the other"
    )


def _is_oasst(row: Row) -> bool:
    return {"message_id", "parent_id", "text", "role"} <= row.keys() or (
        {"message_tree_id", "tree_state", "prompt"} <= row.keys()
        and isinstance(row["prompt"], Mapping)
    )


def _from_oasst(row: Row) -> str:
    return f"{_IMPORT}write the replies to one message as rows of prompt, chosen, rejected by their rank (0 is best)"


def _is_summaries(row: Row) -> bool:
    return {"info", "summaries", "choice"} <= row.keys() and isinstance(row["info"], Mapping)


def _from_summaries(row: Row) -> str:
    return (
        f"{_IMPORT}write each as a row of prompt (the post, and what is asked), chosen (summaries[choice].text), "
        "rejected, and rater (worker)"
    )


NOT_READ: tuple[tuple[str, Callable[[Row], bool], Callable[[Row], str]], ...] = (
    ("Label Studio's export of comparisons", _is_unnamed_comparison, _name_the_fields),
    ("Label Studio's export of tasks", _is_task, _as_columns),
    ("Label Studio's flat export", _is_label_studio_flat, _export_whole),
    ("an Argilla export", lambda row: bool(_argilla_questions(row)), _from_argilla),
    ("Chatbot Arena's battles", _is_arena, _from_arena),
    ("OpenAssistant's messages", _is_oasst, _from_oasst),
    ("OpenAI's comparisons of summaries", _is_summaries, _from_summaries),
)
"""Name, how it is known, and what to do."""
