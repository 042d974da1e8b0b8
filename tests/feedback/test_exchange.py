"""Feedback out to files and in again: the same votes, and nothing lost without a word."""

from __future__ import annotations

import gzip
import json

import pytest

from plaudit.feedback.entries import Segment, ranking_vote, words_vote
from plaudit.feedback.exchange import export_feedback, import_comparisons, import_feedback
from plaudit.feedback.formats import log
from plaudit.feedback.incoming import read_comparisons
from plaudit.feedback.store import FeedbackStore
from plaudit.records.columns import read_rows, write_jsonl, write_parquet
from plaudit.records.datasets import read_dataset
from plaudit.records.errors import UserError


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        opened.add_item("one", "p1", ["good", "bad"], {"topic": "x"})
        opened.add_item("two", "p2", ["yes", "no"])
        opened.add_item("three", "p3", ["x", Segment("y", model="m", extra={"t": 1})])
        opened.add_item("unseen", "p4", ["u", "v"])
        opened.add_comparison(
            "one", "ann", "a", margin=1.5, order_shown="ba", seconds=2.0, time=5.0
        )
        opened.add_comparison("two", "ann", "b", margin=0.5, strength=3)
        opened.add_comparison("three", "ann", "tie")
        opened.add_comparison("three", "bob", "both_bad")
        opened.add_comparison("one", "bob", "b", margin=9)
        opened.undo(rater="bob")
        yield opened


@pytest.fixture
def other(tmp_path):
    with FeedbackStore(tmp_path / "other.sqlite") as opened:
        yield opened


NO_OFFER = {"offer": None, "propensity": None, "policy": None}
ENDINGS = pytest.mark.parametrize("ending", ["jsonl", "parquet"])


@ENDINGS
def test_preferences_and_what_they_cannot_say(store, tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    written = export_feedback(store, path)
    assert written.num_rows == 2
    assert written.left_out == {"ties": 1, "both bad": 1}
    rows, kind = read_dataset(path)
    assert kind == "preference"
    assert rows == [
        {"prompt": "p1", "chosen": "good", "rejected": "bad", "margin": 1.5, "rater": "ann",
         "order_shown": [1, 0], "seconds": 2.0, **NO_OFFER},
        {"prompt": "p2", "chosen": "no", "rejected": "yes", "margin": 0.5, "rater": "ann",
         "order_shown": None, "seconds": None, **NO_OFFER},
    ]  # fmt: skip


def test_margins_go_only_where_every_pair_has_one(store, tmp_path):
    store.add_comparison("unseen", "ann", "a")
    written = export_feedback(store, tmp_path / "out.jsonl")
    assert written.left_out["margins (not every pair has one)"] == 2
    assert all("margin" not in row for row in read_rows(tmp_path / "out.jsonl"))


@ENDINGS
def test_preferences_round_trip(store, other, tmp_path, ending):
    export_feedback(store, tmp_path / f"out.{ending}")
    taken = import_comparisons(other, tmp_path / f"out.{ending}", rater="ann")
    assert (taken.num_rows, taken.num_items, taken.num_votes) == (2, 2, 2)

    def said(where):
        return [
            (c.prompt, c.chosen, c.rejected, c.margin, c.rater)
            for c in where.comparisons()
            if c.chosen is not None
        ]

    assert said(other) == said(store)
    digest = other.content_digest()
    again = import_comparisons(other, tmp_path / f"out.{ending}", rater="ann")
    assert (again.num_items, again.num_votes) == (0, 0)
    assert other.content_digest() == digest


@ENDINGS
def test_labels_round_trip(store, other, tmp_path, ending):
    store.add_score("unseen", "ann", 1)
    store.add_score("unseen", "ann", 0.5, segment=1)
    path = tmp_path / f"labels.{ending}"
    written = export_feedback(store, path, form="unpaired")
    rows, kind = read_dataset(path)
    assert kind == "unpaired"
    assert [(r["completion"], r["label"]) for r in rows] == [
        ("good", True),
        ("bad", False),
        ("yes", False),
        ("no", True),
        ("x", False),  # both bad
        ("y", False),
        ("u", True),
    ]
    assert written.left_out == {"ties": 1, "scores other than 0 and 1": 1}
    import_feedback(other, path)
    export_feedback(other, tmp_path / "again.jsonl", form="unpaired")
    told = ("prompt", "completion", "label", "rater", "seconds")
    assert [[row[n] for n in told] for row in read_rows(tmp_path / "again.jsonl")] == [
        [row[n] for n in told] for row in rows
    ]
    assert {s.rater for s in other.scores()} == {"ann", "bob"}


@ENDINGS
def test_scores_round_trip(store, other, tmp_path, ending):
    for rater, scores in {"ann": (0.25, 1), "bob": (3, -1)}.items():
        for position, score in enumerate(scores):
            store.add_score("two", rater, score, segment=position)
    path = tmp_path / f"scores.{ending}"
    export_feedback(store, path, form="scores")
    rows, kind = read_dataset(path)
    assert kind == "scored"
    assert rows[0] == {
        "prompt": "p2",
        "completions": ["yes", "no"],
        "scores": [0.25, 1.0],
        "rater": "ann",
        "order_shown": None,
        "seconds": [None, None],
        **{name: [None, None] for name in NO_OFFER},
    }
    import_feedback(other, path)
    assert [(s.answer, s.score, s.rater) for s in other.scores()] == [
        (s.answer, s.score, s.rater) for s in store.scores()
    ]
    assert len(other.items()) == 1


@ENDINGS
def test_the_raw_log_rebuilds_the_identical_store(store, other, tmp_path, ending):
    store.add_votes([ranking_vote("three", "ann", [[1], [0]], shown=[0, 1])])
    store.add_votes([words_vote("two", "bob", "too short", segment=1)])
    store.undo(store.undo(2))
    path = tmp_path / f"log.{ending}"
    export_feedback(store, path, form="votes")
    import_feedback(other, path)
    assert other.content_digest() == store.content_digest()
    assert other.votes(active=False) == store.votes(active=False)  # times too
    assert import_feedback(other, path).num_votes == 0


def test_one_raters_votes_keep_their_undos(store, other, tmp_path):
    store.undo(1, rater="bob")
    export_feedback(store, tmp_path / "ann.jsonl", form="votes", rater="ann")
    import_feedback(other, tmp_path / "ann.jsonl")
    assert [(c.item_key, c.preference) for c in other.comparisons()] == [
        ("two", "b"),
        ("three", "tie"),
    ]


def test_the_same_row_twice_is_two_votes(other, tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "source": "web"}
    path = tmp_path / "twice.jsonl"
    path.write_text((json.dumps(row) + "\n") * 2)
    taken = import_feedback(other, path)
    assert (taken.num_items, taken.num_votes) == (1, 2)
    assert other.comparisons()[1].columns == {"source": "web"}


def test_messages_and_renamed_columns(other, tmp_path):
    talk = [{"role": "user", "content": "hi"}]
    path = tmp_path / "talk.jsonl"
    answer = [{"role": "assistant", "content": "hello"}]
    path.write_text(json.dumps({"question": talk, "good": answer, "bad": "go away"}) + "\n")
    names = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    import_comparisons(other, path, columns=names)
    [said] = other.comparisons()
    assert (said.prompt, said.chosen, said.rejected) == (talk, answer, "go away")


ODD = [None, True, 0, -1, 7, 1.5, "", "x", "{", [], [0], [[]], [None], {}, {"a": 0}, [{"text": 1}]]


@pytest.mark.parametrize("column", sorted((*log.COLUMNS, "visible_seconds")))
def test_a_tampered_log_is_refused_in_one_sentence_or_read_whole(store, tmp_path, column):
    """Every column replaced by every odd value, in a row of each kind: nothing else is raised."""
    store.add_votes([ranking_vote("three", "ann", [[1], [0]], shown=[0, 1])])
    store.add_votes([words_vote("two", "bob", "too short", segment=1)])
    store.add_score("two", "bob", 1)
    export_feedback(store, tmp_path / "log.jsonl", form="votes")
    rows = list(read_rows(tmp_path / "log.jsonl"))
    refused = []
    with FeedbackStore("sqlite://") as other:
        for index in (0, 5, 6, 7, 8):  # comparison, undo, ranking, words, score
            for odd in ODD:
                tampered = [dict(row) for row in rows]
                tampered[index][column] = odd
                write_jsonl(tmp_path / "odd.jsonl", tampered)
                before = other.size()
                try:
                    import_feedback(other, tmp_path / "odd.jsonl")
                except UserError as error:
                    refused.append((str(error), before == other.size()))
                other.comparisons(), other.scores(), other.votes()
    assert len(refused) > 20
    assert all(kept and "\n" not in message for message, kept in refused)


def test_errors(store, other, tmp_path):
    with pytest.raises(UserError, match="holds no feedback for the form 'preference'"):
        export_feedback(other, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(UserError, match=r"no feedback of 'bob'.*1 both bad"):
        export_feedback(store, tmp_path / "out.jsonl", rater="bob")
    with pytest.raises(UserError, match="did you mean 'votes'"):
        export_feedback(store, tmp_path / "out.jsonl", form="vote")
    with pytest.raises(UserError, match=r"must end in \.jsonl or \.jsonl\.gz or"):
        export_feedback(store, tmp_path / "out.txt")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        '{"prompt": "p", "chosen": "a", "rejected": "b"}\n{"prompt": "p", "chosen": "a"}'
    )
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: no column 'rejected'"):
        import_feedback(other, bad)
    bad.write_text('{"prompt": "p", "completion": "a"}\n')
    with pytest.raises(UserError, match="line 1: no column 'label'"):
        import_feedback(other, bad)
    with pytest.raises(UserError, match="line 1: no column 'chosen'"):
        import_comparisons(other, bad)
    assert other.size() == (0, 0)


def test_the_store_holds_a_clean_prompt_and_answer(other, tmp_path):
    """UltraFeedback binarized: the question is in the prompt and in both conversations."""
    asked = {"role": "user", "content": "Name a river."}
    said = [{"role": "assistant", "content": text} for text in ("The Weser.", "No.")]
    row = {"prompt": "Name a river.", "prompt_id": "x", "messages": [asked, said[0]],
           "chosen": [asked, said[0]], "rejected": [asked, said[1]], "score_chosen": 8.0}  # fmt: skip
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    taken = import_feedback(other, tmp_path / "pairs.jsonl")
    [c] = other.comparisons()
    assert (c.prompt, c.chosen, c.rejected) == ("Name a river.", [said[0]], [said[1]])
    assert c.columns == {"prompt_id": "x", "messages": row["messages"], "score_chosen": 8.0}
    assert taken.notes[0].endswith("is read as comparisons (prompt, chosen, rejected)")
    assert "whole conversations in 1 of 1 rows" in taken.notes[1]
    assert import_feedback(other, tmp_path / "pairs.jsonl").num_votes == 0


def test_comparisons_are_read_without_a_store(tmp_path):
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "margin": m, "id": m} for m in (1, 2)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    read = read_comparisons(tmp_path / "pairs.jsonl", {"number": "id"})
    assert read == [
        (f"{tmp_path}/pairs.jsonl, line {m}", "p", "a", "b", m, "pairs", {"number": m})
        for m in (1, 2)
    ]
    assert read[0].where.endswith("line 1")
    named = [row | {"rater": "ann"} for row in rows]
    write_jsonl(tmp_path / "pairs.jsonl", named)
    assert [c.rater for c in read_comparisons(tmp_path / "pairs.jsonl", rater="bob")] == ["ann"] * 2


def test_scores_and_labels_of_other_formats_and_tables(other, tmp_path):
    raw = {"instruction": "q", "completions": [
        {"response": "a", "overall_score": 7}, {"response": "b", "overall_score": 2.5}]}  # fmt: skip
    write_jsonl(tmp_path / "raw.jsonl", [raw])
    taken = import_feedback(other, tmp_path / "raw.jsonl")
    assert [(s.prompt, s.answer, s.score, s.rater) for s in other.scores()] == [
        ("q", "a", 7, "raw"),
        ("q", "b", 2.5, "raw"),
    ]
    [note] = taken.notes
    assert note.endswith(
        "raw.jsonl is read as UltraFeedback (raw) (it has instruction, completions)"
    )
    (tmp_path / "votes.csv.gz").write_bytes(gzip.compress(b"prompt,completion,label\nq,a,true\n"))
    import_feedback(other, tmp_path / "votes.csv.gz")
    assert other.scores()[-1].score == 1
    assert other.scores()[-1].rater == "votes"


def test_a_column_of_bytes_stops_no_import(other, tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "image": b"\x89PNG", "id": 3}
    write_parquet(tmp_path / "d.parquet", [row])
    taken = import_comparisons(other, tmp_path / "d.parquet")
    assert other.comparisons()[0].columns == {"id": 3}
    assert ["'image' is left out" in note for note in taken.notes] == [True]
