"""Garbage that is collected later is collected, and only by whoever collected it before."""

from __future__ import annotations

import gc
import weakref

import pytest

from plaudit.records.collecting import collecting_later


class Ring:
    """Garbage that only a search for cycles finds."""

    def __init__(self):
        self.own = self


def dropped():
    return weakref.ref(Ring())


def test_what_is_dropped_meanwhile_is_collected_afterwards():
    assert gc.isenabled()
    with collecting_later():
        found = dropped()
        assert not gc.isenabled()
        _ = [[] for _ in range(100_000)]  # as many as start a search
        assert found() is not None
    assert gc.isenabled()
    gc.collect()
    assert found() is None


def test_who_had_turned_it_off_keeps_it_off_and_an_error_turns_it_on():
    with pytest.raises(OSError), collecting_later():
        raise OSError
    assert gc.isenabled()
    gc.disable()
    try:
        with collecting_later():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
