"""Every format out of a store and in again: what it can say is the same, what it cannot is counted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from plaudit.feedback.entries import (
    Segment,
    comparison_vote,
    edit_vote,
    flag_vote,
    ranking_vote,
    score_vote,
    skip_vote,
    words_vote,
)
from plaudit.feedback.exchange import export_feedback, import_feedback
from plaudit.feedback.formats.table import FORMATS, NAMES
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from plaudit.records.rows import read_rows
from plaudit.records.turns import canonical_messages

TALK = [
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Weser."},
    {"role": "user", "content": "Another one?"},
]


@pytest.fixture
def store(tmp_path):
    """Two annotators, every kind of vote, a tie, both bad, a skip, one that was taken back."""
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        opened.add_item(
            "one", "Name a lake.", [Segment("Como.", model="m1"), Segment("No.", model="m2")]
        )
        opened.add_item("two", "=1+1", ["-2", "@x"])
        opened.add_item("talk", TALK, [[{"role": "assistant", "content": "The Elbe."}], "Ä 😀"])
        opened.add_item("three", "Rank these.", ["u", "v", "w"])
        opened.add_votes([
            comparison_vote("one", "ann", "a", order_shown="ba", seconds=2.5, strength=3),
            comparison_vote("two", "ann", "tie", order_shown="ab", seconds=1.25),
            comparison_vote("two", "bob", "both_bad", order_shown="ba"),
            comparison_vote("talk", "bob", "b", positions=(1, 0), order_shown="ab"),
            comparison_vote("one", "bob", "b", key="gone"),
            skip_vote("one", "bob", seconds=9),
            ranking_vote("three", "ann", [[2], [0, 1]], shown=[1, 0, 2], seconds=7),
            score_vote("three", "ann", 0.5, segment=1, seconds=3),
            score_vote("three", "ann", 1, segment=0),
            edit_vote("one", "ann", "Lake Como.", segment=0, seconds=30),
            words_vote("one", "ann", "tie", segment=1),
            flag_vote("two", "bob", "not a question"),
        ])  # fmt: skip
        opened.undo(key="gone/undo", vote_id=5)
        yield opened


@pytest.fixture
def other(tmp_path):
    with FeedbackStore(tmp_path / "other.sqlite") as opened:
        yield opened


def turns(text):
    return tuple((m["role"], m["content"].strip()) for m in canonical_messages(text))


def answer(text):
    return text.strip() if isinstance(text, str) else turns(text)[0][1]


def compared(store, *, ordered=True):
    """What the comparisons say, whichever answer is called a: (prompt, won, lost, who, first, s)."""
    found = []
    for c in store.comparisons():
        a, b = answer(c.a), answer(c.b)
        won = {"a": (a, b), "b": (b, a)}.get(c.preference) or (c.preference, *sorted((a, b)))
        first = None if c.order_shown is None else (a if c.order_shown == "ab" else b)
        found.append((turns(c.prompt), won, c.rater, first if ordered else None, c.seconds))
    return sorted(found, key=repr)


def ranked(store):
    found = []
    items = {item.key: item for item in store.items()}
    for vote in store.votes(kind="ranking"):
        item = items[vote.item_key]
        texts = [sorted(answer(item.segments[n].text) for n in g) for g in vote.value["ranking"]]
        shown = vote.shown and tuple(answer(item.segments[n].text) for n in vote.shown)
        found.append((turns(item.prompt), texts, vote.rater, shown, vote.seconds))
    return sorted(found, key=repr)


def scored(store):
    return sorted((turns(s.prompt), answer(s.answer), s.score, s.rater, s.seconds) for s in store.scores())  # fmt: skip


def there_and_back(store, other, path, form, **how):
    written = export_feedback(store, path, form=form)
    taken = import_feedback(other, path, form=how.pop("as_form", None), **how)
    assert import_feedback(other, path, form=how.pop("as_form", None), **how).num_votes == 0
    return written, taken


def without(said, *preferences):
    return [one for one in said if one[1][0] not in preferences]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "parquet"])
def test_the_log_keeps_everything_in_every_kind_of_file(store, other, tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    there_and_back(store, other, tmp_path / f"log.{ending}", "votes")
    assert other.content_digest() == store.content_digest()
    assert other.votes(active=False) == store.votes(active=False)


@pytest.mark.parametrize("form", ["preference", "implicit", "hh"])
def test_trl_columns_and_transcripts(store, other, tmp_path, form):
    written, _ = there_and_back(store, other, tmp_path / "out.jsonl", form)
    assert written.num_rows == 2
    assert written.left_out | {"scores": 2} == written.left_out
    lost = {"ties": 1, "both bad": 1, "skips": 1, "rankings": 1, "scores": 2, "edits": 1,
            "remarks in words": 1, "flags": 1}  # fmt: skip
    assert written.left_out == lost
    assert compared(other) == without(compared(store), "tie", "both_bad")


def test_labels_parts_scores_and_rankings(store, other, tmp_path):
    there_and_back(store, other, tmp_path / "scores.jsonl", "scores")
    assert scored(other) == scored(store)
    there_and_back(store, other, tmp_path / "rankings.jsonl", "rankings")
    assert ranked(other) == ranked(store)
    store.add_votes([score_vote("one", "bob", n, segment=n, seconds=n + 1) for n in (0, 1)])
    with FeedbackStore(tmp_path / "third.sqlite") as third:
        there_and_back(store, third, tmp_path / "parts.jsonl", "stepwise")
        assert scored(third) == [one for one in scored(store) if one[3] == "bob"]


def test_what_annotators_wrote_is_a_demonstration_and_a_pair(store, tmp_path):
    def rows(form):
        export_feedback(store, tmp_path / f"{form}.jsonl", form=form)
        return read_rows(tmp_path / f"{form}.jsonl")

    [demonstration] = rows("sft")
    assert (demonstration["prompt"], demonstration["completion"]) == ("Name a lake.", "Lake Como.")
    assert (demonstration["rater"], demonstration["seconds"]) == ("ann", 30)
    [pair] = rows("edits")
    assert (pair["chosen"], pair["rejected"]) == ("Lake Como.", "Como.")
    [talk] = rows("messages")
    assert [turn["content"] for turn in talk["messages"]] == ["Name a lake.", "Lake Como."]
    [text] = rows("text")
    assert text["text"] == "Name a lake.Lake Como."
    assert [row["prompt"] for row in rows("prompts")][2] == TALK
    with pytest.raises(UserError, match="sft is written and not read"):
        import_feedback(store, tmp_path / "sft.jsonl", form="sft")


def test_items_come_in_without_votes(store, other, tmp_path):
    written, taken = there_and_back(store, other, tmp_path / "items.jsonl", "items")
    assert written.left_out == {"votes": 11}
    assert (taken.num_items, taken.num_votes) == (4, 0)
    assert other.items() == store.items()
    (tmp_path / "more.jsonl").write_text(
        '{"prompt": "p", "completions": ["a", "b"], "ask": "words"}\n'
    )
    import_feedback(other, tmp_path / "more.jsonl")
    assert other.items()[-1].columns == {"ask": "words"}


@pytest.mark.parametrize("form", ["arena", "arena-140k"])
def test_arena_says_ties_and_both_bad(store, other, tmp_path, form):
    _, taken = there_and_back(store, other, tmp_path / "out.jsonl", form)
    assert compared(other) == compared(store)
    assert other.comparisons()[0].model_a == "m1"
    assert f"{tmp_path}/out.jsonl is read as Chatbot Arena" in taken.notes[0]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_arena_of_one_hot_columns(store, other, tmp_path, ending):
    written, _ = there_and_back(store, other, tmp_path / f"out.{ending}", "arena-55k")
    assert written.left_out["both bad"] == 1
    assert written.left_out["conversations that are not one question and one answer in turn"] == 1
    said = [one for one in without(compared(store), "both_bad") if len(one[0]) == 1]
    assert compared(other) == said
    assert [c.preference for c in other.comparisons()] == ["a", "tie"]


def test_openai_comparisons_and_axes(store, other, tmp_path):
    written, _ = there_and_back(store, other, tmp_path / "out.jsonl", "openai")
    assert written.left_out["prompts of several turns"] == 1
    said = [one for one in without(compared(store), "tie", "both_bad") if len(one[0]) == 1]
    assert compared(other) == said
    assert [c.strength for c in other.comparisons()] == [3]
    there_and_back(store, other, tmp_path / "axes.jsonl", "openai-axes")
    assert scored(other) == scored(store)


def test_ultrafeedback(store, other, tmp_path):
    written, taken = there_and_back(store, other, tmp_path / "out.jsonl", "ultrafeedback")
    assert written.num_rows == 1
    assert scored(other) == scored(store)
    assert "left out: 1 answers without a rating" in taken.notes
    assert len(other.items()[0].segments) == 3


@pytest.mark.parametrize("form", ["oasst-trees", "oasst-messages"])
def test_oasst(store, other, tmp_path, form):
    written, _ = there_and_back(store, other, tmp_path / "out.jsonl.gz", form)
    assert written.left_out["both bad"] == 1
    found = ranked(other)
    assert [one for one in found if len(one[1][0] + one[1][-1]) == 3] == ranked(store)
    pairs = [(one[1], one[2]) for one in found if one not in ranked(store)]
    assert sorted(pairs, key=repr) == [([["-2", "@x"]], "ann"), ([["Como."], ["No."]], "ann"),
                                       ([["The Elbe."], ["Ä 😀"]], "bob")]  # fmt: skip


def test_label_studio_keeps_skips_and_says_that_ties_are_lost(store, other, tmp_path):
    written, _ = there_and_back(store, other, tmp_path / "out.json", "label-studio")
    assert written.left_out["ties (Label Studio cannot store them)"] == 1
    assert written.left_out["both bad (Label Studio cannot store them)"] == 1
    said = [one for one in without(compared(store), "tie", "both_bad") if len(one[0]) == 1]
    assert compared(other) == said
    assert [(v.rater, v.seconds) for v in other.votes(kind="skip")] == [("bob", 9)]


def test_argilla(store, other, tmp_path):
    written, taken = there_and_back(store, other, tmp_path / "out.jsonl", "argilla")
    assert written.left_out == {"flags": 1, "prompts of several turns": 1}
    assert "left out: 1 discarded responses" in taken.notes
    assert compared(other) == [one for one in compared(store) if len(one[0]) == 1]
    assert (ranked(other), scored(other)) == (ranked(store), scored(store))
    for kind in ("edit", "words"):
        [[mine], [theirs]] = (where.votes(kind=kind) for where in (store, other))
        assert (mine.value, mine.rater, mine.seconds) == (
            theirs.value,
            theirs.rater,
            theirs.seconds,
        )


@pytest.mark.parametrize(
    "form", [form for form in FORMATS if form.name != "prompts"], ids=lambda f: f.name
)
def test_every_row_says_who_and_how(store, tmp_path, form):
    store.add_votes([score_vote("one", "ann", n, segment=n, seconds=n + 1) for n in (0, 1)])
    export_feedback(store, tmp_path / f"out{form.endings[0]}", form=form.name)
    text = (tmp_path / f"out{form.endings[0]}").read_bytes()
    text = gzip.decompress(text) if form.endings[0].endswith("gz") else text
    assert form.name == "items" or b"ann" in text
    if form.name not in ("votes", "items"):
        wanted = ("order_shown", "seconds", "offer", "propensity", "policy")
        assert all(f'{name}"'.encode() in text for name in wanted)


def test_the_command_names_every_format():
    from plaudit.cli.feedback import FORMATS as words

    assert all(name in words.replace(",", " ").split() for name in NAMES)


def test_the_guide_has_a_row_for_every_format():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = [row.partition("|")[2].partition("|")[0] for row in text.splitlines() if row.startswith("| `")]  # fmt: skip
    told = {name.strip(" `") for row in rows for name in row.split(",")}
    assert told >= set(NAMES)


def test_a_spreadsheet_finds_no_formula(store, other, tmp_path):
    store.add_item("evil", "=cmd()", ["\t=1", "'=2"], {"x": 1})
    store.add_comparison("evil", "@ann", "a", seconds=-0.0)
    there_and_back(store, other, tmp_path / "out.csv", "preference")
    lines = (tmp_path / "out.csv").read_text()
    assert "'=cmd()" in lines
    assert (other.comparisons()[-1].prompt, other.comparisons()[-1].rater) == ("=cmd()", "@ann")
    cells = [cell for row in read_rows(tmp_path / "out.csv") for cell in row.values()]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t") and not cell[1:2].isdigit()]  # fmt: skip
    there_and_back(store, other, tmp_path / "log.csv", "votes")
