"""The protocol of saving: generators go on, parts keep apart."""

from __future__ import annotations

import numpy as np

from plaudit.records.state import Parts, SeededGenerator, StepCounter, part_of


def test_a_generator_goes_on_and_purposes_differ():
    one, other = SeededGenerator(7, 0), SeededGenerator(7, 1)
    assert one.rng.random() != other.rng.random()
    saved = one.state()
    numbers = one.rng.random(5)
    one.restore(saved)
    assert (one.rng.random(5) == numbers).all()


def test_each_part_gets_its_own():
    one, other = SeededGenerator(1, 0), SeededGenerator(2, 0)
    parts = Parts(a=one, ab=other)
    saved = parts.state()
    numbers = one.rng.random(), other.rng.random()
    parts.restore(saved)
    assert (one.rng.random(), other.rng.random()) == numbers
    assert part_of(({"a/x": np.ones(1), "ab/x": np.zeros(1)}, {"a": {}}), "a")[0].keys() == {"x"}


def test_parts_within_parts_are_saved_under_both_names():
    inner = Parts(count=StepCounter(3))
    outer = Parts(inner=inner)
    assert outer.state() == ({}, {"inner": {"count": {"step": 3}}})
    inner.parts["count"].restore(({}, {"step": 0}))
    outer.restore(({}, {"inner": {"count": {"step": 5}}}))
    assert inner.state()[1] == {"count": {"step": 5}}
