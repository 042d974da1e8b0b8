"""Offers and answers kept in plain lists, every question answered by going through all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

ANSWER_OF = {"compare": "comparison", "score": "score", "rank": "ranking"}
PASSES = ("skip", "flag")


@dataclass
class ModelVote:
    key: str
    who: str
    offer: str
    kind: str
    content: object
    standing: bool = True


@dataclass
class ModelOffer:
    key: str
    who: str
    item: str
    ask: str
    purpose: str
    policy: str
    shown: tuple
    turn: int
    made: float
    length: float
    expires: float
    released: bool = False
    votes: list = field(default_factory=list)

    def standing(self, kinds):
        return [vote for vote in self.votes if vote.standing and vote.kind in kinds]

    @property
    def is_said(self):
        return bool(self.standing((ANSWER_OF[self.ask],)))

    @property
    def is_answered(self):
        return bool(self.standing((ANSWER_OF[self.ask], *PASSES)))

    def is_live(self, now):
        return not self.released and not self.is_answered and self.expires > now


@dataclass
class Model:
    overlap: int = 1
    now: float = 1_000_000.0
    items: list = field(default_factory=list)
    offers: dict = field(default_factory=dict)
    votes: list = field(default_factory=list)
    paused: set = field(default_factory=set)

    def of(self, item):
        return [offer for offer in self.offers.values() if offer.item == item]

    def mine(self, who):
        return [o for o in self.offers.values() if o.who == who and o.is_live(self.now)]

    def turn(self, who):
        return sum(offer.who == who for offer in self.offers.values())

    def answerers(self, item):
        return {o.who for o in self.of(item) if o.purpose == "work" and o.is_said}

    def takers(self, item):
        live = {o.who for o in self.of(item) if o.purpose == "work" and o.is_live(self.now)}
        return live | self.answerers(item)

    def touches(self, who, item):
        return any(o.who == who and (o.is_answered or o.is_live(self.now)) for o in self.of(item))

    def has_answered(self, who, item):
        return any(o.who == who and o.is_answered for o in self.of(item))

    def open_to(self, who):
        return {
            item
            for item in self.items
            if len(self.takers(item)) < self.overlap and not self.touches(who, item)
        }

    def is_done(self, item):
        return len(self.answerers(item)) >= self.overlap

    def lacking(self, who):
        """Items that lack votes and could still use this person's."""
        return {i for i in self.items if not self.is_done(i) and not self.has_answered(who, i)}

    def held_long(self, who, seconds):
        """Items that others hold, none of them since less than `seconds`."""
        found = set()
        for item in self.lacking(who):
            live = [o for o in self.of(item) if o.purpose == "work" and o.is_live(self.now)]
            mine = any(o.who == who and o.is_live(self.now) for o in self.of(item))
            if live and not mine and max(o.made for o in live) <= self.now - seconds:
                found.add(item)
        return found

    def standing_of(self, who):
        return [vote for vote in self.votes if vote.who == who and vote.standing]

    def undo(self, vote):
        vote.standing = False
        offer = self.offers[vote.offer]
        answers = (ANSWER_OF[offer.ask], *PASSES)
        if vote.kind in answers:
            offer.expires = max(offer.expires, self.now + offer.length)
