"""A run that waits for people: what counts, when it goes on, and that it goes on from the same votes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from plaudit.feedback.entries import Item, Segment, comparison_vote, score_vote
from plaudit.feedback.store import FeedbackStore
from plaudit.pipelines.rlhf.waiting import Tally, comparisons_as_of, tally, wait_for_votes
from plaudit.records.events import Checkpoint, Done, Step
from plaudit.records.files import read_json, read_jsonl
from plaudit.records.interrupt import Interrupt, Interrupted
from tiny_job import FLAGS, run_command, tiny_job

TRAIN, HELD = 40, 8


def pairs():
    """Items as the job makes them: two answers, each with its row and its prompt's split."""
    made = []
    for split, num in (("train", TRAIN), ("held_out", HELD)):
        for k in range(num):
            sides = [Segment(f"{split} {k} {side}", extra={"split": split, "row": 2 * k + i})
                     for i, side in enumerate("ab")]  # fmt: skip
            made.append(Item(f"{split}-{k}", f"Prompt {k}?", tuple(sides)))
    return made


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.sqlite") as opened:
        yield opened


def events(store, *, wanted=30, patience=0.0, interrupt=None, say=lambda text: None, saved=None):
    """What the stage says; without `patience` it looks once."""
    return wait_for_votes(
        store,
        pairs(),
        wanted=wanted,
        patience=patience,
        interrupt=interrupt or Interrupt(),
        say=say,
        page="plaudit studio --run one",
        saved=saved,
    )


def vote(store, items, preference="a", rater="Ada"):
    return store.add_votes([comparison_vote(i.key, rater, preference) for i in items])


def stopped(store, **options):
    """The sentence with which it stops."""
    with pytest.raises(Interrupted) as caught:
        list(events(store, **options))
    return str(caught.value)


def test_it_says_what_is_there_what_is_wanted_and_where_to_vote(store):
    said = []
    interrupt = Interrupt()

    def say(text):
        said.append(text)
        interrupt.request()

    sentence = stopped(store, patience=None, interrupt=interrupt, say=say)
    assert sentence == (
        f"48 pairs wait for people's votes in {store.name}: votes that prefer one answer are 0 of "
        "30 wanted (0 on training prompts, of at least 20, and 0 on held-out prompts, of at least 1)"
    )
    assert said[0] == f"Waiting: {sentence}."
    assert said[1].startswith("Vote on the page that this opens: plaudit studio --run one.")


def test_it_goes_on_at_the_wanted_number_and_not_a_vote_before(store):
    store.add_items(pairs())
    items = store.items()
    vote(store, [*items[:28], items[TRAIN]])
    assert "are 29 of 30 wanted (28 on training" in stopped(store)
    vote(store, items[28:29])
    *_, step, checkpoint, done = events(store)
    assert (step.step, step.total, step.metrics["feedback/votes"]) == (30, 30, 30.0)
    assert isinstance(checkpoint, Checkpoint)
    assert done.metrics == {"votes": 30.0, "last_vote": 30.0}


@pytest.mark.parametrize(
    ("num_train", "num_held", "expected"),
    [(19, 11, False), (20, 10, True), (30, 0, False), (29, 1, True)],
)
def test_both_splits_need_their_own(num_train, num_held, expected):
    counts = Tally(train=num_train, held_out=num_held)
    assert counts.enough(wanted=30, num_items=100) is expected


def test_ties_bad_pairs_scores_and_undone_votes_do_not_count(store):
    store.add_items(pairs())
    items = store.items()
    ids = vote(store, [*items[:29], items[TRAIN]])
    vote(store, items[30:34], "tie")
    vote(store, items[34:36], "both_bad")
    store.add_votes([score_vote(items[36].key, "Ada", 0.7)])
    undo = store.undo(ids[0])
    assert "are 29 of 30 wanted" in stopped(store)
    store.undo(undo)  # an undo taken back: the vote stands again
    assert isinstance(list(events(store))[-1], Done)
    counts = tally(store.comparisons())
    assert (counts.votes, counts.ties) == (36, 4)


def test_people_who_disagree_evenly_prefer_neither(store):
    store.add_items(pairs())
    first = store.items()[0]
    vote(store, [first], "a")
    assert tally(store.comparisons()).train == 1
    vote(store, [first], "b", rater="Bea")
    assert tally(store.comparisons()).train == 0
    vote(store, [first], "b", rater="Cyd")
    assert tally(store.comparisons()).train == 3


def test_a_vote_on_every_pair_is_enough_where_more_cannot_be_had(store):
    store.add_items(pairs())
    items = store.items()
    vote(store, items[:20])
    vote(store, items[20:TRAIN], "tie")
    vote(store, items[TRAIN:-1], "b")
    assert "are 27 of 48 wanted" in stopped(store, wanted=1000)
    vote(store, items[-1:], "tie")
    assert isinstance(list(events(store, wanted=1000))[-1], Done)


def test_votes_of_another_connection_are_seen_while_it_waits(store, tmp_path):
    def people():
        with FeedbackStore(tmp_path / "feedback.sqlite") as other:
            for item in [*pairs()[:25], *pairs()[TRAIN:]]:
                vote(other, [item])

    said = iter(events(store, patience=60.0))
    assert next(said).step == 0
    thread = threading.Thread(target=people)
    thread.start()
    told = [event for event in said if isinstance(event, Step | Done)]
    thread.join()
    assert isinstance(told[-1], Done)
    assert told[-1].step >= 30
    assert [event.step for event in told] == sorted(event.step for event in told)


def test_what_is_learned_from_does_not_change_with_later_votes_and_undos(store):
    store.add_items(pairs())
    items = store.items()
    ids = vote(store, items[:10])
    undone = store.undo(ids[3])
    then = store.size()[1]
    before = comparisons_as_of(store, then)
    assert [c.vote_id for c in before] == [i for i in ids if i != ids[3]]
    assert before == store.comparisons()
    vote(store, items[10:20])
    store.undo(ids[0])
    store.undo(undone)
    assert comparisons_as_of(store, then) == before
    assert comparisons_as_of(store, store.size()[1]) == store.comparisons()


# --- the whole job

RUN = ["run", "rlhf", *FLAGS, "--feedback.source", "people", "--feedback.votes-wanted", "40"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    made = tiny_job(tmp_path / "job")
    monkeypatch.chdir(made)
    return made


def vote_as_the_studio_does(place, num):
    """`num` votes one by one through a store of its own, as soon as there are pairs."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if place.is_file():
            with FeedbackStore(place, create=False) as store:
                items = store.open_items("Ada", limit=num)
                # Held-out pairs are the last: take some of each split.
                for item in [*items[: num - 5], *store.items()[-5:]] if items else ():
                    a, b = (str(s.text).count("e") for s in item.segments)
                    store.add_comparison(item.key, "Ada", "a" if a >= b else "b", seconds=1.0)
                if items:
                    return
        time.sleep(0.05)


def test_a_run_goes_on_by_itself_once_people_have_voted(folder):
    place = folder / "runs" / "one" / "feedback.sqlite"
    people = threading.Thread(target=vote_as_the_studio_does, args=(place, 40))
    people.start()
    done = run_command(*RUN, "--name", "one")
    people.join()
    assert (done.code, done.err) == (0, "")
    assert "Vote on the page that this opens: plaudit studio --run runs/one" in done.out
    stage = read_json(folder / "runs/one/stages/feedback.json")
    assert stage["votes"] == 40
    assert read_json(folder / "runs/one/results.json")["feedback"]["num_votes"] == 40


def test_killed_while_waiting_it_is_resumed_and_waits_on(folder):
    """SIGKILL in the middle of the wait, votes while nobody runs: the end is that of one sitting."""
    start = "from plaudit.cli.main import main; raise SystemExit(main())"
    command = [sys.executable, "-c", start, *RUN, "--name", "killed"]
    place = folder / "runs" / "killed"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=os.environ) as run:
        while not waits(place):
            assert run.poll() is None
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    before = answers(place)
    vote_as_the_studio_does(place / "feedback.sqlite", 40)
    done = run_command("run", "--resume", "killed")
    assert (done.code, done.err) == (0, "")
    assert answers(place) == before
    people = threading.Thread(
        target=vote_as_the_studio_does, args=(folder / "runs/whole/feedback.sqlite", 40)
    )
    people.start()
    assert run_command(*RUN, "--name", "whole").code == 0
    people.join()
    numbers = [
        [{k: v for k, v in row.items() if k not in ("time", "seconds")}
         for row in read_jsonl(folder / "runs" / name / "metrics.jsonl")
         if row["stage"] != "feedback"]
        for name in ("killed", "whole")
    ]  # fmt: skip
    assert numbers[0] == numbers[1]


def waits(run: Path) -> bool:
    log = run / "events.jsonl"
    told = read_jsonl(log) if log.is_file() else []
    return bool(told) and (told[-1]["stage"], told[-1]["event"]) == ("feedback", "saved")


def answers(run: Path) -> bytes:
    return (run / "stages" / "answers_train.safetensors").read_bytes()


def test_a_stop_while_waiting_saves_and_says_how_to_go_on(folder):
    done = run_command(*RUN, "--feedback.wait-seconds", "0", "--name", "one")
    assert done.code == 130
    assert done.err.count("\n") == 1
    assert "votes that prefer one answer are 0 of 40 wanted" in done.err
    assert done.err.endswith("Saved. Continue with: plaudit run --resume runs/one\n")
