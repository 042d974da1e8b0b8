"""What is too large for memory: exports and imports whose memory does not grow, and slices that are kept."""

from __future__ import annotations

import contextlib
import json
import threading
import tracemalloc

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from plaudit.feedback import exchange, walk
from plaudit.feedback.entries import (
    Item,
    Segment,
    comparison_vote,
    flag_vote,
    ranking_vote,
    score_vote,
    skip_vote,
    words_vote,
)
from plaudit.feedback.exchange import export_feedback, export_lines, import_feedback
from plaudit.feedback.formats.table import FORMATS
from plaudit.feedback.store import FeedbackStore
from plaudit.records import slices
from plaudit.records.errors import UserError

WORDS = "some words of an answer that somebody must read before they can judge it " * 4


def fill(store, num):
    items, votes = [], []
    for n in range(num):
        parts = (Segment(f"{n} a {WORDS}"), Segment(f"{n} b {WORDS}"))
        items.append(Item(f"i{n}", f"{n} prompt {WORDS}", parts, {}))
        said = ("a", "b", "tie", "both_bad")[n % 4]
        votes.append(
            comparison_vote(f"i{n}", f"rater {n % 7}", said, key=f"v{n}", order_shown="ba")
        )
    store.add_items(items)
    store.add_votes(votes)


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["votes", "arena", "label-studio"])
def test_memory_does_not_grow_with_the_log(tmp_path, monkeypatch, form):
    """Four times the votes, the same peak; a list of all rows would be 2 MB more."""
    monkeypatch.setattr(walk, "PAGE", 50)
    monkeypatch.setattr(slices, "ROWS", 50)
    monkeypatch.setattr(exchange, "SLICE", 50)
    found = {}
    for num in (200, 200, 800):  # once to import and compile what is needed
        path = tmp_path / f"{num}.jsonl"
        with FeedbackStore("sqlite://") as store, FeedbackStore("sqlite://") as other:
            fill(store, num)
            columns = None
            out = peak(lambda: export_feedback(store, path, form=form))  # noqa: B023
            back = peak(lambda: import_feedback(other, path, columns=columns))  # noqa: B023
            assert form == "label-studio" or other.size()[1] == num
        found[num] = (out, back)
    for few, many in zip(found[200], found[800], strict=True):
        assert many < few * 1.3 + 300_000, found


def test_an_export_is_what_was_there_when_it_began(tmp_path, monkeypatch):
    """Votes that come in meanwhile are not in it, and nobody waits for it."""
    monkeypatch.setattr(walk, "PAGE", 10)
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        fill(store, 25)
        lines = export_lines(store, "votes")
        first = next(lines)
        store.add_comparison("i3", "late", "a", key="late")
        rows = [json.loads(line) for line in (first, *lines)]
    assert [row["vote_key"] for row in rows] == [f"v{n}" for n in range(25)]


def test_lines_may_be_made_by_changing_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(walk, "PAGE", 10)
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        fill(store, 30)
        lines, found = export_lines(store, "arena"), []
        while True:
            thread = threading.Thread(target=lambda: found.append(next(lines, None)))
            thread.start()
            thread.join()
            if found[-1] is None:
                break
    assert len(found) == 31


def test_a_line_that_is_wrong_at_the_end_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "ROWS", 10)
    monkeypatch.setattr(exchange, "SLICE", 10)
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(99)]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "p", "chosen": ""}\n'
    )
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        with pytest.raises(UserError, match="line 100: no column 'rejected'"):
            import_feedback(store, path)
        assert store.size() == (0, 0)


def test_what_the_store_would_refuse_is_refused_before_anything_is_kept(tmp_path, monkeypatch):
    """An item without a prompt at the end of the file, and one that is there with other content."""
    monkeypatch.setattr(exchange, "SLICE", 2)
    path = tmp_path / "items.jsonl"
    good = [{"key": f"k{n}", "prompt": "p", "completions": ["a", "b"]} for n in range(5)]
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        for last, says in (
            ({"key": "k9", "prompt": " ", "completions": ["a"]}, "line 6: item 'k9': the prompt is empty"),
            ({"key": "k8", "prompt": "q", "completions": []}, "line 6: item 'k8' has no segments"),
        ):  # fmt: skip
            path.write_text("".join(json.dumps(row) + "\n" for row in [*good, last]))
            with pytest.raises(UserError, match=says):
                import_feedback(store, path)
            assert store.size() == (0, 0)
        store.add_item("k4", "another prompt", ["a", "b"])
        path.write_text("".join(json.dumps(row) + "\n" for row in good))
        with pytest.raises(
            UserError, match="line 5: item 'k4' is already there with other content"
        ):
            import_feedback(store, path)
        assert store.size() == (1, 0)


def test_what_was_kept_of_an_import_that_fails_is_said_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "SLICE", 10)
    rows = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(25)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        add, calls = store.add_votes, []

        def failing(votes):
            calls.append(1)
            if len(calls) == 2:
                raise UserError("the disk is full")
            return add(votes)

        monkeypatch.setattr(store, "add_votes", failing)
        with pytest.raises(
            UserError, match=r"full \(what stands before .*line 11 was kept; importing"
        ):
            import_feedback(store, path)
        assert store.size() == (10, 10)
        taken = import_feedback(store, path)
        assert (taken.num_items, taken.num_votes, store.size()) == (15, 15, (25, 25))


def test_a_writer_gets_in_between_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "SLICE", 5)
    path = tmp_path / "rows.jsonl"
    with FeedbackStore("sqlite://") as full:
        fill(full, 50)
        export_feedback(full, path, form="votes")
    with FeedbackStore(tmp_path / "s.sqlite") as store:
        store.add_item("mine", "p", ["a", "b"])
        real, votes = store.add_votes, []

        def and_another(some):
            if len(votes) < 3:
                votes.append(1)
                thread = threading.Thread(target=lambda: store.add_comparison("mine", "x", "a"))
                thread.start()
                waiting.append(thread)
            return real(some)

        waiting: list[threading.Thread] = []
        monkeypatch.setattr(store, "add_votes", and_another)
        taken = import_feedback(store, path)
        for thread in waiting:
            thread.join(10)
        assert (taken.num_items, taken.num_votes) == (50, 50)  # theirs are not counted as ours
        assert store.size() == (51, 53)


# --- any log -----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1).filter(str.strip)  # fmt: skip


def turn(role):
    return st.fixed_dictionaries({"role": st.just(role), "content": TEXTS})


ANSWERS = TEXTS | turn("assistant").map(lambda one: [one])
PROMPTS = TEXTS | st.tuples(
    turn("system") | turn("user"), turn("user"), turn("assistant"), turn("user")
).flatmap(lambda four: st.sampled_from([[*four], [*four[1:]], [four[3]]]))
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
MAYBE = st.none() | st.floats(0, 1e6)


@st.composite
def logs(draw):
    """Items with two or three segments, and entries of every kind on them, some taken back."""
    num = draw(st.integers(1, 4))
    items = [
        Item(
            f"i{n}",
            draw(PROMPTS),
            tuple(
                Segment(draw(ANSWERS), model=draw(st.none() | TEXTS), extra=draw(st.sampled_from([{}, {"x": [1]}])))
                for _ in range(draw(st.integers(2, 3)))
            ),
            draw(st.sampled_from([{}, {"ask": "words", "=n": None}])),
        )
        for n in range(num)
    ]  # fmt: skip
    makers = [
        lambda key, who: comparison_vote(key, who, draw(st.sampled_from(["a", "b", "tie", "both_bad"])),
                                         order_shown=draw(st.sampled_from([None, "ab", "ba"])), seconds=draw(MAYBE)),
        lambda key, who: score_vote(key, who, draw(st.floats(-5, 5)), segment=draw(st.integers(0, 1))),
        lambda key, who: ranking_vote(key, who, draw(st.sampled_from([[[0, 1]], [[1], [0]]])), shown=draw(st.sampled_from([None, [1, 0]]))),
        lambda key, who: words_vote(key, who, draw(TEXTS), segment=draw(st.sampled_from([None, 0]))),
        lambda key, who: skip_vote(key, who, seconds=draw(MAYBE)),
        lambda key, who: flag_vote(key, who, draw(st.just("") | TEXTS)),
    ]  # fmt: skip
    votes = [
        draw(st.sampled_from(makers))(f"i{draw(st.integers(0, num - 1))}", draw(TEXTS))
        for _ in range(draw(st.integers(1, 6)))
    ]
    return items, votes, draw(st.lists(st.integers(1, 6), max_size=4))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    phases=NO_SHRINKING,
)
@given(logs())
def test_any_log_comes_back_the_same(tmp_path, ending, made):
    items, votes, undone = made
    path = tmp_path / f"log.{ending}"
    with FeedbackStore("sqlite://") as store, FeedbackStore("sqlite://") as other:
        store.add_items(items)
        store.add_votes(votes)
        for id_ in undone:
            with contextlib.suppress(UserError):  # there are fewer, or it is undone already
                store.undo(id_, rater="somebody")
        export_feedback(store, path, form="votes")
        import_feedback(other, path)
        assert other.content_digest() == store.content_digest()
        assert other.votes(active=False) == store.votes(active=False)


@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    phases=NO_SHRINKING,
)
@given(logs())
def test_every_format_reads_what_it_writes(tmp_path, made):
    """Whatever is in the log: what was written is read without a refusal, and known as that format."""
    items, votes, _ = made
    with FeedbackStore("sqlite://") as store:
        store.add_items(items)
        store.add_votes(votes)
        for form in FORMATS:
            path = tmp_path / f"out{form.endings[0]}"
            try:
                export_feedback(store, path, form=form.name)
            except UserError as error:
                if "holds no feedback" not in str(error):
                    raise
                continue
            if form.read is not None:
                with FeedbackStore("sqlite://") as other:
                    import_feedback(other, path, form=form.name)
                    assert form.name == "items" or other.size()[1]
