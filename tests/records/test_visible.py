"""Texts of others on a terminal and on a page: nothing in them drives the one or turns round the other."""

from __future__ import annotations

import html.parser
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plaudit.cli.progress import PlainProgress, sample_line
from plaudit.pipelines.pages.page_text import apart, seen
from plaudit.records.events import Rollout, Step
from plaudit.records.visible import steers, visible, visible_line

ESCAPES = "\x1b]0;mine\x07\x1b[2J\x9b31m\r\x08"
TURNS = "a\u202ecod.exe\u2066x\u2069\u2069\u202c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 日本 🙂 e\u0301 a\u200db", "plain ä 日本 🙂 e\u0301 a\u200db"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m\x7f\0", "\\x9b31m\\x7f\\x00"),
        ("a\u202eb\u2067c\u2069", "a\\u202eb\\u2067c\\u2069"),
        ("one\u2028two", "one\\u2028two"),
        ("two\nlines\tapart", "two\nlines\tapart"),
        ("bell\a back\b return\r", "bell\\x07 back\\x08 return\\r"),
    ],
)
def test_what_steers_is_written_out(text, shown):
    assert visible(text) == shown
    assert visible_line(text) == shown.replace("\n", "\\n").replace("\t", "\\t")


@given(st.text())
def test_no_character_that_steers_is_left(text):
    for shown, kept in ((visible(text), "\n\t"), (visible_line(text), "")):
        kinds = {
            (unicodedata.category(c), unicodedata.bidirectional(c)) for c in shown if c not in kept
        }
        assert not {kind for kind, _ in kinds} & {"Cc", "Zl", "Zp"}
        assert not {way for _, way in kinds} & {
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }
    assert (steers(text) is None) == (visible_line(text) == text)


def test_a_models_text_cannot_drive_the_terminal(capsys):
    import sys

    line = sample_line({"prompt": ESCAPES + TURNS, "completion": "fine\n" + ESCAPES})
    assert visible_line(line) == line
    progress = PlainProgress(sys.stdout)
    progress.begin("ppo", [])
    progress.show(Rollout(1, [{"completion": ESCAPES + TURNS}], {}))
    progress.show(Step(1, 1, {}))
    progress.end()
    progress.note("told " + ESCAPES)
    out = capsys.readouterr().out
    assert visible(out) == out
    assert "\\x1b[2J" in out


class Places(html.parser.HTMLParser):
    """The direction that holds at each text of a page, and the texts."""

    def __init__(self, page):
        super().__init__()
        self.inside, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside.append((tag, dict(attrs).get("dir")))

    def handle_endtag(self, tag):
        self.inside.pop()

    def handle_data(self, data):
        kept = any(tag == "bdi" or way == "auto" for tag, way in self.inside)
        self.texts.append((data, kept))


@given(st.text())
def test_on_a_page_a_text_keeps_its_letters_and_its_place(text):
    parsed = Places(str(apart(text)))
    assert all(kept for _, kept in parsed.texts)
    assert not parsed.inside
    told = "".join(data for data, _ in parsed.texts)
    assert not set(told) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x1b\0")
    if visible(text) == text and "\r" not in text and text.isprintable():
        assert told == text


def test_a_turning_mark_is_shown_by_its_code_point():
    assert str(seen("<b>\u202eevil")) == '&lt;b&gt;<span class="mark">U+202E</span>evil'
    assert str(seen("\ud800")) == "?"
