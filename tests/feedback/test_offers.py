"""People who leave in the middle, many threads at once, chances that are what they say, and costs."""

from __future__ import annotations

import heapq
import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from plaudit.feedback import database
from plaudit.feedback.group import GroupCommit
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from store_state import assert_kept_as_rebuilt, begun, steps

LEASE = 600.0


def filled(where, num_items, people, **settings):
    store = FeedbackStore(where)
    store.offers.generator = random.Random(4)
    begun(store, num_items, people, **settings)
    return store


def vote(offer, key, preference="a"):
    value = {"a": 0, "b": 1, "preference": preference}
    return OfferVote(key, offer.key, "comparison", value, 3.0, 2.0)


# --- leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["uniform", "waiting"])
def test_a_fifth_of_the_people_leave_in_the_middle(policy):
    """Hardly any work is done twice, nothing stays with those who left, nobody is sent away."""
    chance = random.Random(policy)
    people = [f"p{n}" for n in range(20)]
    leavers = set(people[:4])
    store = filled(":memory:", 400, people, repeat_share=0.05, policy=policy)
    offers = store.offers
    held = {who: [] for who in people}
    acts = [(chance.random() * 5, who) for who in people]
    heapq.heapify(acts)
    answered, polls, now = Counter(), [], 0.0
    left_at = {}
    with store.batch():
        while acts:
            now, who = heapq.heappop(acts)
            if who in leavers and now > 30 and chance.random() < 0.3:
                left_at[who] = now  # without a word, with up to three in hand
                continue
            if held[who]:
                offer = held[who].pop(0)
                (said,) = offers.answer(who, [vote(offer, f"{who}/{now}")], now=now)
                answered[offer.purpose, said.status] += 1
            if len(held[who]) < 3:
                held[who] += offers.draw(who, 3 - len(held[who]), now=now)
            if held[who]:
                heapq.heappush(acts, (now + chance.lognormvariate(1.6, 0.5), who))
            elif offers.waiting(who, now=now):
                polls.append(now)
                heapq.heappush(acts, (now + 1.0, who))
            else:
                progress = offers.progress(who, now=now)
                assert progress.done_items == progress.wanted_items  # sent away, as all is done
    assert set(left_at) == leavers
    progress = offers.progress(people[-1], now=now)
    assert progress.done_items == progress.wanted_items == 400
    num = answered["work", "kept"] + answered["work", "surplus"]
    assert answered["work", "kept"] == 400
    assert answered["work", "surplus"] <= 0.005 * num
    assert store.quality.agreement().surplus == answered["work", "surplus"]
    assert answered["repeat", "kept"] > 2
    assert_kept_as_rebuilt(store, now=now)
    # everything was over soon after the last could have been taken back from those who left
    begun = min(polls, default=now)
    assert now <= max(begun, *left_at.values()) + LEASE + 1


def test_what_somebody_took_away_is_open_when_the_lease_ends_and_not_before():
    store = filled(":memory:", 3, ("ann", "bob"), repeat_share=0.0)
    taken = store.offers.draw("ann", 3, now=0.0)
    assert store.offers.draw("bob", 3, now=59.0) == []
    assert store.offers.waiting("bob", now=59.0)
    (tail,) = store.offers.draw("bob", 3, now=60.0)  # idle, and held for a minute by somebody else
    assert tail.policy == "tail"
    assert store.offers.draw("bob", 3, now=61.0) == []  # one at a time
    rest = store.offers.draw("bob", 3, now=LEASE)
    assert {o.item_key for o in rest} == {o.item_key for o in taken} - {tail.item_key}
    late = store.offers.answer("ann", [vote(o, f"a{n}") for n, o in enumerate(taken)], now=700.0)
    assert [a.status for a in late] == ["kept"] * 3  # late, and still wanted
    again = store.offers.answer("bob", [vote(o, f"b{n}") for n, o in enumerate(rest)], now=701.0)
    assert [a.status for a in again] == ["surplus"] * 2
    assert len(store.votes()) == 5
    assert not store.offers.waiting("bob", now=LEASE + 701)


def test_an_undone_vote_gives_its_offer_back_except_one_that_was_released():
    store = filled(":memory:", 2, ("ann", "bob"), repeat_share=0.0)
    kept, released = store.offers.draw("ann", 2, now=0.0)
    store.offers.release(released.key, "ann", now=1.0)
    store.offers.answer("ann", [vote(kept, "k"), vote(released, "r")], now=2.0)
    back = store.offers.undo_last("ann", 2, now=3.0)
    assert [(u.key, u.offer and u.offer.key) for u in back] == [("r", None), ("k", kept.key)]
    assert back[1].offer.expires == 3.0 + LEASE
    assert [o.key for o in store.offers.mine("ann", now=4.0)] == [kept.key]
    assert [o.item_key for o in store.offers.draw("bob", 2, now=4.0)] == [released.item_key]


def test_a_slow_person_has_longer_leases_up_to_a_limit():
    store = filled(":memory:", 40, ("ann",), repeat_share=0.0, lease_seconds=100.0)
    (first,) = store.offers.draw("ann", 1, now=0.0)
    assert first.expires == 100.0
    for seconds, length, now in ((60.0, 300.0, 1_000.0), (1e9, 600.0, 2_000.0)):
        for offer in store.offers.draw("ann", 8, now=now):
            value = {"a": 0, "b": 1, "preference": "tie"}
            said = OfferVote(offer.key, offer.key, "comparison", value, seconds)
            store.offers.answer("ann", [said], now=now)
        for offer in store.offers.draw("ann", 2, now=now + 90):
            assert offer.expires == offer.made + length
            store.offers.release(offer.key, "ann", now=now + 90)


# --- chances -----------------------------------------------------------------------------------


def test_a_uniform_draw_is_uniform_over_what_a_person_may_have():
    """Chi-square over 300 items of which a third are blocked, served together and alone."""
    store = filled(":memory:", 300, ("ann", "bob"), repeat_share=0.0, overlap=2)
    with store.batch():
        for offer in [o for _ in range(4) for o in store.offers.draw("ann", 25, now=0.0)][:100]:
            store.offers.answer("ann", [OfferVote(offer.key, offer.key, "skip", {})], now=0.0)
        blocked = {v.item_key for v in store.votes(rater="ann")}
        drawn: Counter[str] = Counter()
        for _ in range(500):
            offers = store.offers.draw("ann", 4, now=0.0)
            assert [o.eligible for o in offers] == [300 - len(blocked) - k for k in range(4)]
            assert [o.propensity for o in offers] == [1 / o.eligible for o in offers]
            drawn.update(o.item_key for o in offers)
            store.offers.release_all("ann", now=0.0)
    assert not blocked & set(drawn)
    expected = 2_000 / (300 - len(blocked))
    chi = sum((drawn[f"i{n}"] - expected) ** 2 / expected for n in range(300)
              if f"i{n}" not in blocked)  # fmt: skip
    free = 299 - len(blocked)
    assert abs(chi - free) < 4 * (2 * free) ** 0.5


def test_what_waited_longest_comes_first_except_for_a_uniform_share():
    store = filled(":memory:", 50, ("ann",), repeat_share=0.0, policy="waiting", uniform_share=0.5)
    offers = store.offers.draw("ann", 30, now=0.0)
    by = Counter(o.policy for o in offers)
    assert min(by["waiting"], by["uniform"]) > 5
    left = [f"i{n}" for n in range(50)]
    for offer in offers:
        first = offer.item_key == left[0]
        assert first or offer.policy == "uniform"
        assert offer.propensity == pytest.approx(0.5 / len(left) + 0.5 * first)
        left.remove(offer.item_key)


def test_sides_are_shown_in_either_order_as_often():
    store = filled(":memory:", 400, ("ann",), repeat_share=0.0)
    shown = [o.shown for _ in range(2) for o in store.offers.draw("ann", 30, now=0.0)]
    assert set(shown) == {(0, 1), (1, 0)}
    assert 15 <= shown.count((0, 1)) <= 45


def test_items_say_what_is_asked_of_them():
    store = filled(":memory:", 0, ("ann",))
    for num, column, asked in (
        (1, None, "score"), (2, None, "compare"), (4, None, "rank"), (7, None, "rank"),
        (2, "words", "words"), (3, "edit", "edit"), (1, "compare", "score"), (3, "compare", "compare"),
        (2, "nonsense", "compare"),
    ):  # fmt: skip
        columns = {} if column is None else {"ask": column}
        store.add_item(f"{num} {column} {asked}", "p", [f"s{k}" for k in range(num)], columns)
    for offer in store.offers.draw("ann", 30):
        num, _, asked = offer.item_key.split()
        assert offer.ask == asked
        assert len(offer.shown) == (2 if asked == "compare" else min(5, int(num)))
        assert len(set(offer.shown)) == len(offer.shown)


def test_votes_that_cannot_be_are_refused_with_a_sentence_and_stop_no_other():
    store = filled(":memory:", 1, ("ann",))
    store.add_item("score", "p", ["x"])
    store.add_item("rank", "p", ["x", "y", "z"])
    by = {o.ask: o for o in store.offers.draw("ann", 3)}

    def said(ask, kind, value, **details):
        return OfferVote(details.pop("key", f"{ask}{value}"), by[ask].key, kind, value, **details)

    good = said("compare", "comparison", {"a": 0, "b": 1, "preference": "a"})
    bad = {
        "unknown kind|the vote is 'shout'": said("compare", "shout", {}),
        "asks to compare": said("compare", "score", {"segment": 0, "score": 1}),
        "preference is 'c'": said("compare", "comparison", {"a": 0, "b": 1, "preference": "c"}),
        "no segment 7": said("compare", "comparison", {"a": 0, "b": 7, "preference": "a"}),
        "expected a number from 0 to 1": said("score", "score", {"segment": 0, "score": 2}),
        "leaves answers out": said("rank", "ranking", {"ranking": [[0], [1]]}),
        "expected a finite number": said("score", "score", {"segment": 0, "score": float("nan")}),
        "expected 0 or more": said("score", "score", {"segment": 0, "score": 1}, seconds=-1.0),
        "its value has": said("compare", "skip", {"gold": 1}),
        "vote's key": said("compare", "skip", {}, key=""),
        "no vote of yours": OfferVote("u", None, "undo", {"vote": "none"}),
    }
    answered = store.offers.answer("ann", [*bad.values(), good])
    for message, answer in zip(bad, answered, strict=False):
        assert answer.status == "refused"
        assert any(part in answer.sentence for part in message.split("|")), answer
    assert answered[-1].status == "kept"
    assert len(store.votes()) == 1
    (nobody,) = store.offers.answer("bob", [good])
    assert (nobody.status, nobody.sentence) == ("refused", "there is nobody called 'bob'")


# --- many at once ------------------------------------------------------------------------------


def test_threads_that_draw_and_answer_at_once_lose_and_double_nothing(tmp_path):
    people = [f"p{n}" for n in range(12)]
    store = filled(tmp_path / "f.sqlite", 260, people, repeat_share=0.0)
    told: Counter[str] = Counter()
    lock = threading.Lock()

    def work(who):
        while offers := store.offers.draw(who, 2):
            votes = [vote(offer, offer.key) for offer in offers]
            for one in (*votes, votes[0]):  # the first once more, as after a lost answer
                (answer,) = store.offers.answer(who, [one])
                with lock:
                    told[answer.status] += 1

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(work, people))
    assert told["kept"] == 260
    assert told["surplus"] == told["refused"] == 0
    votes = store.votes()
    assert len(votes) == len({v.item_key for v in votes}) == 260
    assert_kept_as_rebuilt(store, now=0.0)
    store.close()


def test_one_job_that_fails_does_not_take_the_others_along(tmp_path):
    """Three threads queue while a fourth writes; the one that breaks gets its error alone."""
    store = filled(tmp_path / "f.sqlite", 1, ())
    sizes = []

    def work(jobs):
        sizes.append(len(jobs))
        for job in jobs:
            store.add_item(job.what, "p", [] if job.what == "bad" else ["x"])
            job.result = job.what

    group = GroupCommit(store.turn, store.batch, work)
    started = threading.Barrier(4)

    def ask(what):
        started.wait()
        try:
            return group.do(what)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        with store.turn():
            waiting = [pool.submit(ask, what) for what in ("one", "bad", "two")]
            started.wait()
            while len(group._queue) < 3:
                pass
        results = [one.result() for one in waiting]
    assert (results[0], results[2]) == ("one", "two")
    assert "has no segments" in results[1]
    assert sizes[0] == 3  # all at once first
    assert {item.key for item in store.items()} == {"i0", "one", "two"}
    store.close()


# --- cost --------------------------------------------------------------------------------------


def worked(folder, num, policy):
    """A store of which ann answered or skipped a fifth; some of that was undone again."""
    store = filled(folder / f"{policy}{num}.sqlite", num, ("ann", "bob"), policy=policy, overlap=2)
    with store.batch():
        for n in range(num // 40):
            for k, offer in enumerate(store.offers.draw("ann", 10, now=n * 10.0)):
                said = (
                    OfferVote(offer.key, offer.key, "skip", {})
                    if k % 3 == 0
                    else vote(offer, offer.key)
                )
                store.offers.answer("ann", [said], now=n * 10.0)
            store.offers.undo_last("ann", 2, now=n * 10.0)
            store.offers.release_all("ann", now=n * 10.0)
    return store


def drawn(who, num):
    def act(store):
        assert len(store.offers.draw(who, num, now=1e6)) == num

    return act


def answered(store):
    offer = store.offers.mine("bob", now=1e6)[0]
    assert store.offers.answer("bob", [vote(offer, offer.key)], now=1e6)[0].status == "kept"


ACTS = {
    "begin": drawn("bob", 1),
    "draw 1": drawn("ann", 1),
    "draw 3": drawn("bob", 3),
    "answer": answered,
    "mine": lambda s: s.offers.mine("bob", now=1e6),
    "progress": lambda s: s.offers.progress("ann", now=1e6),
    "waiting": lambda s: s.offers.waiting("ann", now=1e6),
    "undo": lambda s: s.offers.undo_last("bob", now=1e6),
    "release": lambda s: s.offers.release_all("bob", now=1e6),
}


@pytest.mark.parametrize("policy", ["uniform", "waiting"])
def test_no_act_costs_more_in_a_longer_log(tmp_path, policy):
    """Counted in instructions of SQLite's machine, of which a scan of the log takes thousands."""
    short, long = worked(tmp_path, 500, policy), worked(tmp_path, 1_500, policy)
    with short, long:
        for name, act in ACTS.items():
            few, many = steps(short, act), steps(long, act)
            assert many <= few + 80, f"{name}: {few} and {many} tens of instructions"


# --- the database ------------------------------------------------------------------------------


def test_versions_of_sqlite_with_the_fault_are_named():
    for version, affected in (
        ((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False),
        ((3, 50, 6), True), ((3, 50, 7), False), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 45, 0), True), ((3, 6, 23), False),
    ):  # fmt: skip
        said = database.sqlite_advice(version)
        assert (said is not None) == affected, version
        if said is not None:
            assert ".".join(map(str, version)) in said
    database.sqlite_advice(sqlite3.sqlite_version_info)
