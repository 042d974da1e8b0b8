"""Offers, answers, undos and leases in any order, beside lists that are searched from end to end."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from oracles.offers_model import ANSWER_OF, Model, ModelOffer, ModelVote
from plaudit.feedback import drawing
from plaudit.feedback.choice import REPEAT_AFTER
from plaudit.feedback.drawing import MOST_HELD
from plaudit.feedback.offered import OfferVote
from plaudit.feedback.store import FeedbackStore
from plaudit.feedback.tables import Base
from store_state import assert_kept_as_rebuilt

PEOPLE = ("ann", "bob", "eve")
LEASE, TAIL = 600.0, 60.0

person = st.sampled_from(PEOPLE)
number = st.integers(0, 1_000)
kind = st.sampled_from(["said", "said", "said", "skip", "flag", "words"])


def value_of(offer, kind, k):
    """A vote of this kind on an offer, one of several."""
    if kind == "comparison":
        a, b = sorted(offer.shown)
        return {"a": a, "b": b, "preference": ("a", "b", "tie", "both_bad")[k % 4]}
    if kind == "score":
        return {"segment": offer.shown[0], "score": k % 8 / 7}
    if kind == "ranking":
        return {"ranking": [[position] for position in sorted(offer.shown)]}
    return {"skip": {}, "flag": {"text": "odd"}, "words": {"segment": None, "text": "hm"}}[kind]


class Desk(RuleBasedStateMachine):
    """Three people at one store; the clock is the model's."""

    where = ":memory:"

    @initialize(
        overlap=st.sampled_from([1, 1, 2, 3]),
        policy=st.sampled_from(["uniform", "waiting"]),
        num=st.integers(0, 12),
        seed=st.integers(0, 99),
        few=st.sampled_from([0, 0, 200]),
    )
    def open(self, overlap, policy, num, seed, few):
        drawing.FEW = few  # above so many open items, those who ask at once are served together
        self.store = FeedbackStore(self.where)
        self.store.offers.generator = random.Random(seed)
        self.store.offers.configure(
            overlap=overlap, policy=policy, repeat_share=0.5, lease_seconds=LEASE, tail_seconds=TAIL
        )
        self.model = Model(overlap)
        self.changed = False  # whether the overlap was, so that surplus is no fault
        self.num_keys = 0
        for name in PEOPLE:
            self.store.people.add(name)
        self.add_items(num)

    def teardown(self):
        if hasattr(self, "store"):
            drawing.FEW = 200
            try:
                assert_kept_as_rebuilt(self.store, now=self.model.now)
            finally:
                self.forget()
                self.store.close()

    def forget(self):
        """Leave nothing to the next example."""

    def new_key(self):
        self.num_keys += 1
        return f"v{self.num_keys}"

    # --- acts ------------------------------------------------------------------------------

    @rule(num=st.integers(1, 8))
    def add_items(self, num):
        for _ in range(num):
            key = f"i{len(self.model.items)}"
            self.store.add_item(key, "p", ["a", "b", "c"][: 1 + (len(self.model.items) + 1) % 3])
            self.model.items.append(key)

    @rule(who=person, num=st.integers(1, 30))
    def draw(self, who, num):
        model, now = self.model, self.model.now
        may, held = model.open_to(who), model.mine(who)
        tail = model.held_long(who, TAIL)
        offers = self.store.offers.draw(who, num, now=now)
        room = min(num, MOST_HELD - len(held))
        work = [o for o in offers if o.purpose == "work"]
        repeats = [o for o in offers if o.purpose == "repeat"]
        if who in model.paused:
            assert offers == []
        elif may and room > 0:
            assert len(offers) == min(room, len(may) + len(repeats))
            assert {o.item_key for o in work} <= may
            assert len({o.item_key for o in offers}) == len(offers)
            assert [o.eligible for o in work] == [len(may) - k for k in range(len(work))]
            for offer in work:
                if self.store.offers.settings.policy == "uniform":
                    assert offer.propensity == 1 / offer.eligible
                else:
                    assert 0.2 / offer.eligible <= offer.propensity <= 1
        elif held or not tail:
            assert offers == []
        else:
            (offer,) = offers
            assert (offer.policy, offer.item_key in tail) == ("tail", True)
        self.note(who, offers)

    @rule(draws=st.lists(st.tuples(person, st.integers(1, 6)), min_size=2, max_size=5))
    def draw_at_once(self, draws):
        """As several threads do: nobody gets what is closed, or less than there is."""
        model, now = self.model, self.model.now
        before = {who: model.open_to(who) for who in PEOPLE}
        with self.store.batch(), self.store.reading() as connection:
            asked = [drawing.Draw(who, num, "auto", now) for who, num in draws]
            served = self.store.offers._desk.serve(connection, asked)
        for (who, _), offers in zip(draws, served, strict=True):
            work = {o.item_key for o in offers if o.purpose == "work" and o.policy != "tail"}
            assert work <= before[who]
            assert all(not model.touches(who, item) for item in work)
            assert all(len(model.takers(item)) < model.overlap for item in work)
            self.note(who, offers)
        for (who, num), offers in zip(draws, served, strict=True):
            if who not in model.paused and len(model.mine(who)) < MOST_HELD:
                assert len(offers) == num or not model.open_to(who) or not before[who]

    def note(self, who, offers):
        model, turn = self.model, self.model.turn(who)
        for offer in offers:
            if offer.purpose == "repeat":
                self.check_repeat(who, offer, offers)
        for k, offer in enumerate(offers, 1):
            assert offer.made == model.now
            assert offer.expires == model.now + LEASE
            model.offers[offer.key] = ModelOffer(
                offer.key, who, offer.item_key, offer.ask, offer.purpose, offer.policy,
                offer.shown, turn + k, model.now, LEASE, offer.expires,
            )  # fmt: skip

    def check_repeat(self, who, offer, offers):
        """The person's own answer, of at least twenty offers ago, in the opposite order, once."""
        turn = self.model.turn(who) + 1 + offers.index(offer)
        assert any(
            o.who == who
            and o.is_said
            and o.shown == offer.shown[::-1]
            and turn - o.turn >= REPEAT_AFTER
            for o in self.model.of(offer.item_key)
        )
        assert len(offer.shown) > 1
        again = [o for o in self.model.of(offer.item_key) if o.who == who and o.purpose == "repeat"]
        assert again == []

    @rule(who=person, which=number, kind=kind, k=number)
    def answer(self, who, which, kind, k):
        """In time, late, released or for the second time: every vote on one's own offer is kept."""
        mine = [o for o in self.model.offers.values() if o.who == who]
        if mine:
            self.say(who, mine[-1 - which % len(mine)], kind, k)

    @rule(who=person, num=st.integers(1, 30), k=number)
    def answer_what_is_held(self, who, num, k):
        for offer in self.model.mine(who)[:num]:
            self.say(who, offer, "said", k)

    @rule(who=person)
    def work_through_many(self, who):
        """So that there is something to repeat."""
        self.add_items(12)
        for _ in range(2):
            self.draw(who, 12)
            self.answer_what_is_held(who, 12, 0)

    def say(self, who, offer, kind, k):
        model = self.model
        kind = ANSWER_OF[offer.ask] if kind == "said" else kind
        others = model.answerers(offer.item) - {who}
        is_again = offer.is_said or who in model.answerers(offer.item)
        is_surplus = (
            kind == ANSWER_OF[offer.ask]
            and offer.purpose == "work"
            and (is_again or len(others) >= model.overlap)
        )
        vote = OfferVote(self.new_key(), offer.key, kind, value_of(offer, kind, k), 1.0, 0.5)
        (answered,) = self.store.offers.answer(who, [vote], now=model.now)
        assert answered.status == ("surplus" if is_surplus else "kept"), answered
        if not self.changed and not self.may_be_surplus(who, offer):
            assert not is_surplus
        mine = ModelVote(vote.key, who, offer.key, kind, vote)
        offer.votes.append(mine)
        model.votes.append(mine)

    def may_be_surplus(self, who, offer):
        """Nothing else makes surplus: lateness, undo, a tail, or an item twice for one person."""
        all_ = self.model.of(offer.item)
        late = any(o.expires <= self.model.now or o.released for o in all_)
        undone = any(not vote.standing for o in all_ for vote in o.votes)
        tail = any(o.policy == "tail" for o in all_)
        twice = any(o.who == who and o is not offer for o in all_) or offer.is_said
        return late or undone or tail or twice

    @rule(which=number, thief=person)
    def send_again_or_wrongly(self, which, thief):
        if not self.model.votes:
            return
        vote = self.model.votes[which % len(self.model.votes)]
        offer = self.model.offers[vote.offer]
        said = vote.content
        other = OfferVote(said.key, said.offer, "flag", {"text": "something else"})
        stolen = OfferVote(self.new_key(), said.offer, said.kind, said.value)
        foreign = OfferVote(self.new_key(), "no such offer", said.kind, said.value)
        size = self.store.size()
        answered = self.store.offers.answer(vote.who, [said, other, foreign], now=self.model.now)
        assert [a.status for a in answered] == ["known", "refused", "refused"]
        if thief != offer.who:
            (answer,) = self.store.offers.answer(thief, [stolen], now=self.model.now)
            assert (answer.status, "no offer of yours" in answer.sentence) == ("refused", True)
        assert self.store.size() == size

    @rule(who=person, num=st.integers(1, 50))
    def undo_last(self, who, num):
        last = self.model.standing_of(who)[::-1][:num]
        undone = self.store.offers.undo_last(who, num, now=self.model.now)
        assert [u.key for u in undone] == [vote.key for vote in last]
        for vote in last:
            self.model.undo(vote)
        for back in undone[-1:]:
            offer = self.model.offers[last[-1].offer]
            assert (back.offer is not None) == offer.is_live(self.model.now)
            assert back.offer is None or back.offer.key == offer.key

    @rule(who=person, which=number)
    def undo_from_an_outbox(self, who, which):
        mine = self.model.standing_of(who)
        if not mine:
            return
        vote = mine[which % len(mine)]
        undo = OfferVote(self.new_key(), None, "undo", {"vote": vote.key})
        again = OfferVote(self.new_key(), None, "undo", {"vote": vote.key})
        answered = self.store.offers.answer(who, [undo, again, undo], now=self.model.now)
        assert [a.status for a in answered] == ["kept", "known", "known"]
        self.model.undo(vote)

    @rule(who=person, which=number)
    def release(self, who, which):
        mine = [o for o in self.model.offers.values() if o.who == who]
        if not mine:
            return
        offer = mine[which % len(mine)]
        held = offer.is_live(self.model.now)
        released = self.store.offers.release(offer.key, who, now=self.model.now)
        assert released or not held
        if released:  # an expired lease that nobody swept yet may be given back too
            offer.released = True

    @rule(who=person)
    def leave_in_the_middle(self, who):
        self.store.offers.release_all(who, now=self.model.now)
        for offer in self.model.offers.values():
            if offer.who == who and not offer.is_answered and offer.is_live(self.model.now):
                offer.released = True

    @rule(who=person)
    def pause(self, who):
        paused = who not in self.model.paused
        self.store.people.pause(who, paused)
        self.model.paused ^= {who}
        if paused:
            self.leave_in_the_middle(who)

    @rule(seconds=st.sampled_from([0.5, 30.0, TAIL, LEASE - 1, LEASE, 2 * LEASE]))
    def wait(self, seconds):
        self.model.now += seconds

    @rule(overlap=st.integers(1, 3))
    def change_overlap(self, overlap):
        self.changed |= overlap != self.model.overlap
        self.model.overlap = overlap
        self.store.offers.configure(overlap=overlap, now=self.model.now)

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def everybody_sees_what_the_model_says(self):
        if not hasattr(self, "store"):
            return
        model, offers = self.model, self.store.offers
        num_done = sum(model.is_done(item) for item in model.items)
        for who in PEOPLE:
            held = offers.mine(who, now=model.now)
            assert [o.key for o in held] == [o.key for o in model.mine(who)]
            assert [o.expires for o in held] == [o.expires for o in model.mine(who)]
            progress = offers.progress(who, now=model.now)
            assert progress.mine == len(model.standing_of(who))
            assert (progress.done_items, progress.wanted_items) == (num_done, len(model.items))
            something = bool(held or model.lacking(who)) and who not in model.paused
            assert offers.waiting(who, now=model.now) == something


# a failing run is read from its acts as it is: to shrink one takes minutes
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}


def test_any_order_of_acts_on_sqlite():
    run_state_machine_as_test(
        Desk, settings=settings(max_examples=12, stateful_step_count=30, **SLOW)
    )


@pytest.mark.nightly
def test_many_orders_of_acts_on_sqlite():
    run_state_machine_as_test(
        Desk, settings=settings(max_examples=200, stateful_step_count=50, **SLOW)
    )


@pytest.mark.parametrize(
    ("num", "steps"), [(3, 20), pytest.param(30, 40, marks=pytest.mark.nightly)]
)
def test_any_order_of_acts_on_postgresql(database, num, steps):
    class OnPostgres(Desk):
        where = database

        def forget(self):
            with self.store.batch(), self.store.reading() as connection:
                tables = ", ".join(set(Base.metadata.tables) - {"plaudit_feedback"})
                connection.exec_driver_sql(f"TRUNCATE {tables}")
                connection.exec_driver_sql(
                    "DELETE FROM plaudit_feedback WHERE name = 'derived_through'"
                )

    run_state_machine_as_test(
        OnPostgres, settings=settings(max_examples=num, stateful_step_count=steps, **SLOW)
    )
