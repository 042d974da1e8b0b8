"""The admin's pages as an admin uses them, in Chromium: people, data, quality, settings, both languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from plaudit.feedback.store import FeedbackStore
from studio.browsing import press, until_saved, visiting
from studio.conftest import pairs
from studio.serving import running

STATIC = Path(__file__).parents[2] / "src" / "plaudit" / "studio" / "static"
PAGES = ("people", "data", "quality", "runs", "settings")


@pytest.fixture
def root(browser, studio):
    with visiting(browser, studio, "Root", role="admin") as visit:
        yield visit


def opened(visit, way):
    page = visit.open(f"/admin#{way}")
    page.locator("main h1").first.wait_for()
    return page


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def test_invited_by_a_link_somebody_votes_and_the_quality_page_counts_it(browser, studio_of):
    up = studio_of(pairs(60), overlap=2, uniform_share=1.0)
    with visiting(browser, up, "Root", role="admin") as root:
        page = opened(root, "people")
        links = []
        for name in ("Ada", "小明"):
            page.get_by_label("Name", exact=True).fill(name)
            page.get_by_role("button", name="Invite").click()
            links.append(page.get_by_label("The link", exact=True).input_value())
            page.get_by_role("button", name="Close").click()
        assert all(re.fullmatch(rf"{up.address}/join#\S{{22,}}", link) for link in links)
        for name, link, num in (("Ada", links[0], 42), ("小明", links[1], 3)):
            with visiting(browser, up, name, role=None) as visit:
                work = visit.context.new_page()
                work.goto(link)
                work.get_by_role("button", name="Enter the studio").click()
                work.locator("article").first.wait_for()
                press(work, "ArrowLeft", times=num)
                until_saved(work)
        page = opened(root, "quality")
        ada = row(page, "Ada")
        assert ada.get_by_role("cell").first.inner_text() == "42"
        # All were the first: 100 %, from the Wilson interval's 42 / (42 + 1.96²) on.
        assert "100% (92% to 100%)" in ada.inner_text()
        assert "too few votes" not in ada.inner_text()
        assert row(page, "小明").get_by_text("too few votes").count() == 3
        assert "fewer than 40 votes" in page.locator("main").inner_text()
        # A link lets in once.
        with visiting(browser, up, "late", role=None) as visit:
            visit.network_is_cut = True  # the refusal is written to the console
            late = visit.context.new_page()
            late.goto(links[0])
            late.get_by_role("button", name="Enter the studio").click()
            late.get_by_role("alert").first.wait_for()
        page = opened(root, "people")
        row(page, "Ada").get_by_role("button", name="Pause").click()
        row(page, "Ada").get_by_text("paused").wait_for()
        assert [p.paused for p in up.store.people.annotators() if p.name == "Ada"] == [True]
        row(page, "Ada").get_by_role("button", name="Erase name").click()
        page.get_by_role("dialog").get_by_role("button", name="Erase name").click()
        row(page, "Ada").wait_for(state="detached")
        assert "Ada" not in {p.name for p in up.store.people.annotators()}
        assert len(up.store.comparisons()) == 45


def test_what_goes_out_comes_in_and_items_are_shown(root, studio, tmp_path):
    studio.store.add_items(pairs(1, start=900))
    studio.store.add_comparison(pairs(1, start=900)[0].key, "Zoe", "b")
    page = opened(root, "data")
    with page.expect_download() as taken:
        page.get_by_role("link", name="All votes").click()
    file = tmp_path / "votes.jsonl"
    taken.value.save_as(file)
    assert any(json.loads(line).get("rater") == "Zoe" for line in file.read_text().splitlines())
    with FeedbackStore(tmp_path / "other.sqlite") as store, running(store) as other:
        with visiting(root.context.browser, other, "Root", role="admin") as visit:
            page = opened(visit, "data")
            page.get_by_label("A file of items or feedback").set_input_files(file)
            page.get_by_role("button", name="Import").click()
            page.get_by_text("items and 1 votes are new").wait_for()
            page.get_by_text("question 0", exact=True).first.click()
            page.get_by_text("answer 0a", exact=True).wait_for()
            page.get_by_role("button", name="Next page").click()
            page.get_by_text("question 20", exact=True).first.wait_for()
        assert [(c.rater, c.preference) for c in store.comparisons()] == [("Zoe", "b")]


def test_a_file_that_cannot_be_read_says_why(root, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{not json\n")
    root.network_is_cut = True  # a refusal is written to the console
    page = opened(root, "data")
    page.get_by_label("A file of items or feedback").set_input_files(bad)
    page.get_by_role("button", name="Import").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert "line 1" in alert.inner_text()


def test_settings_are_kept_and_guidelines_shown(root, studio):
    page = opened(root, "settings")
    page.get_by_label("Votes wanted for an item").fill("3")
    page.get_by_label("What to look for").fill("# Look\n\n- *truth* <b>not</b>")
    page.get_by_label("Ask how much better").check()
    page.get_by_role("button", name="Save").click()
    page.locator(".prose .heading", has_text="Look").wait_for()
    assert page.locator(".prose").last.inner_text().endswith("truth <b>not</b>")
    assert (studio.studio.settings.overlap, studio.studio.settings.strength) == (3, True)
    page.reload()
    assert page.get_by_label("Votes wanted for an item").input_value() == "3"


def test_a_viewer_sees_all_and_can_change_nothing(browser, studio):
    with visiting(browser, studio, "Vic", role="viewer") as visit:
        for way in PAGES:
            page = opened(visit, way)
            page.wait_for_timeout(100)
            names = [b.inner_text() for b in page.locator("main").get_by_role("button").all()
                     if b.is_enabled()]  # fmt: skip
            assert set(names) <= {"Next page"}, (way, names)
            page.close()


def test_both_languages_have_the_same_words():
    catalogues = []
    for lang in ("en", "zh"):
        text = (STATIC / "js" / "admin" / f"words.{lang}.js").read_text()
        catalogues.append(
            dict(re.findall(r'^  "([^"]+)": "((?:[^"\\]|\\.)*)",$', text, re.MULTILINE))
        )
        assert len(catalogues[-1]) == text.count('\n  "')
    english, chinese = catalogues
    assert english.keys() == chinese.keys()
    for key, sentence in english.items():
        assert set(re.findall(r"{\w+}", sentence)) == set(re.findall(r"{\w+}", chinese[key])), key
    used = set()
    for file in (STATIC / "js" / "admin").glob("*.js"):
        used |= set(re.findall(r'\bt\("((?:part|chart|people|data|quality|settings|runs|run)\.[\w.]+)"', file.read_text()))  # fmt: skip
    assert used <= english.keys()
    kinds = set(re.findall(r'Alarm\(\s*f?"(\w+)"', (STATIC.parents[1] / "pipelines" / "alarms.py").read_text()))  # fmt: skip
    assert {f"alarm.{kind}" for kind in kinds - {"answers_"}} <= english.keys()


WAYS_TO_LOOK = [
    ("en-GB", "light", 1280),
    ("zh-CN", "dark", 320),
    pytest.param("en-GB", "dark", 320, marks=pytest.mark.nightly),
    pytest.param("en-GB", "dark", 1280, marks=pytest.mark.nightly),
    pytest.param("zh-CN", "light", 320, marks=pytest.mark.nightly),
    pytest.param("zh-CN", "light", 1280, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("lang", "scheme", "width"), WAYS_TO_LOOK)
def test_no_page_is_wider_than_the_screen_and_axe_finds_nothing_serious(
    browser, studio, lang, scheme, width
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"locale": lang, "color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with visiting(browser, studio, "Root", role="admin", bypass_csp=True, **options) as visit:
        for way in PAGES:
            page = opened(visit, way)
            page.wait_for_timeout(150)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, way
            found = [v for v in axe.run(page).response["violations"]
                     if v["impact"] in ("serious", "critical")]  # fmt: skip
            assert not found, (way, [(v["id"], v["nodes"][0]["html"]) for v in found])
            page.close()
