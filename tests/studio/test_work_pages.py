"""What holds of the annotator's pages as they are: for everybody, in both languages, safe and light."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from plaudit.feedback.entries import Item, Segment
from plaudit.studio.pages import STATIC
from studio.browsing import press, standing, until_saved, visiting
from studio.conftest import pairs

ROOT = Path(__file__).parents[2]
MARKDOWN = "# A head\n\n**bold** `code`\n\n- one\n- two\n\n```\nlong = 'x' * 200 + 'a line that is too wide for a telephone'\n```\n\n> said"
ASKS = {"compare": 2, "score": 1, "rank": 4, "words": 2, "edit": 1}
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "[press](javascript:document.title='owned')",
    "<svg/onload=alert(1)>",
    '"><iframe src="//evil.example"></iframe>',
    "![a picture](http://evil.example/x.png)",
)


@pytest.fixture(scope="module")
def axe():
    return Axe()


def serious(page, axe):
    """What axe finds serious or critical, in words."""
    found = axe.run(page).response["violations"]
    return [
        f"{v['id']}: {node['target']} {node.get('failureSummary')}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize(
    ("lang", "scheme", "width"), list(product(("en", "zh"), ("light", "dark"), (320, 1280)))
)
def test_axe_finds_nothing_serious_and_nothing_is_cut_off(
    studio_of, browser, axe, lang, scheme, width
):
    items = [
        Item(ask, "Is it so?", (Segment(MARKDOWN),) * num, {"ask": ask})
        for ask, num in ASKS.items()
    ]
    up = studio_of(items, guidelines=MARKDOWN)
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 720}}

    def check(page, what):
        assert serious(page, axe) == [], what
        too_wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not too_wide, f"{what} is wider than {width} px"

    locale = "zh-CN" if lang == "zh" else "en-GB"
    with visiting(browser, up, "ann", role=None, locale=locale, **options) as visit:
        page = visit.open("/join")
        page.locator("main input").wait_for()
        assert page.evaluate("document.documentElement.lang")[:2] == lang
        check(page, "join")
    with visiting(browser, up, "ann", role="admin", **options) as visit:
        up.store.people.set("ann", lang=lang)
        up.studio.sessions.forget()
        page = visit.work()
        seen, has_seen_panels = set(), False
        for _ in ASKS:
            seen.add(page.locator("#question").inner_text())
            check(page, page.locator("#question").inner_text())
            if page.locator("textarea").count():
                page.keyboard.press("Escape")
            elif not has_seen_panels:
                has_seen_panels = True
                for key in ("g", "?", "f"):
                    page.keyboard.press(key)
                    page.locator("dialog").wait_for()
                    check(page, f"panel of {key}")
                    page.keyboard.press("Escape")
                    page.locator("dialog").wait_for(state="detached")
            press(page, "s")
        page.locator(".idle h2").wait_for()
        check(page, "nothing to do")
        assert len(seen) == len(ASKS)


def test_markup_in_texts_and_names_is_painted_as_text(studio_of, browser):
    name = '<b onclick="x">Bo & Co</b>'
    hostile = "\n\n".join(HOSTILE)
    items = [
        Item("compare", hostile, (Segment(hostile), Segment(f"```\n{hostile}\n```"))),
        Item("edit", [{"role": "<i>user</i>", "content": hostile}], (Segment(hostile),), {"ask": "edit"}),
        Item("words", hostile, (Segment(hostile),), {"ask": "words"}),
    ]  # fmt: skip
    up = studio_of(items, guidelines=hostile)
    with visiting(browser, up, name) as visit:
        page = visit.work()
        expect(page.locator(".who")).to_have_text(name)
        for _ in items:
            text = page.locator("main").inner_text()
            for piece in HOSTILE[:2]:
                assert piece in text
            if page.locator("textarea").count():
                page.keyboard.press("Control+a")
                page.keyboard.insert_text(f"{hostile}!")
                press(page, "Control+Enter")
            else:
                page.keyboard.press("d")
                assert HOSTILE[0] in page.locator("article").first.inner_text()
                page.keyboard.press("g")
                assert HOSTILE[0] in page.locator("dialog").inner_text()
                page.keyboard.press("Escape")
                press(page, "t")
        until_saved(page)
        assert len(standing(up.store, name)) == 3
        assert page.title() == "Work · Plaudit"
        assert page.locator("main :is(script, iframe, img, a[href^=javascript])").count() == 0


def test_the_language_and_the_theme_change_at_once_and_are_remembered(studio_of, browser):
    up = studio_of(pairs(3))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        shown = page.locator("article .prose").all_inner_texts()
        page.get_by_role("button", name="中文").click()
        expect(page.locator("#question")).to_have_text("哪个回答更好？")
        expect(page.get_by_role("button", name="English")).to_be_focused()
        assert page.locator("article .prose").all_inner_texts() == shown
        page.get_by_role("button", name="跟随系统").click()
        page.get_by_role("button", name="浅色").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.reload()
        expect(page.locator("#question")).to_have_text("哪个回答更好？")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 22, 26)"
    (ann,) = [one for one in up.store.people.annotators() if one.name == "ann"]
    assert ann.lang == "zh"


def test_nothing_moves_when_an_item_or_a_banner_appears(studio_of, browser):
    up = studio_of([Item(f"i{n}", "q", (Segment("a"), Segment("b"))) for n in range(4)])
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        place = "JSON.stringify(document.querySelector('article').getBoundingClientRect())"
        before = page.evaluate(place)
        page.keyboard.press("u")
        expect(page.locator("#floats .notice:not(#unsaved)")).to_be_visible()
        assert page.evaluate(place) == before
        press(page, "t")
        assert page.evaluate(place) == before


def test_all_scripts_weigh_at_most_100_kB_on_the_wire(studio_of, browser):
    """Of every page, in both languages; and one page's code, without its comments, unpacked."""
    up = studio_of(pairs(2))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        loaded = page.evaluate(
            "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('.js'))"
            ".map((e) => [new URL(e.name).pathname, e.encodedBodySize])"
        )
        wire = 0
        for script in sorted((STATIC / "js").rglob("*.js")):
            path = f"/static/{script.relative_to(STATIC)}"
            said = visit.context.request.get(up.address + path, headers={"Accept-Encoding": "gzip"})
            assert said.headers.get("content-encoding") == "gzip" or script.stat().st_size < 1000
            wire += int(said.headers["content-length"])
    assert len(loaded) > 15
    assert sum(size for _, size in loaded) <= 50_000
    assert wire <= 100_000
    code = "".join(
        re.sub(r"/\*\*.*?\*/|^\s*//.*$", "", (STATIC / path[8:]).read_text(), flags=re.S | re.M)
        for path, _ in loaded
    )
    assert len(code.encode()) <= 100_000


def catalogue(file: Path) -> dict[str, str]:
    """The keys and sentences of a catalogue, which is written as an object of strings."""
    found = re.findall(r'^  ("[^"]+"):\s*("(?:[^"\\]|\\.)*"),$', file.read_text(), re.M)
    return {json.loads(key): json.loads(said) for key, said in found}


@pytest.mark.parametrize("folder", ["js", "js/admin"])
def test_both_languages_have_the_same_keys_and_values(folder):
    if not (STATIC / folder / "words.en.js").exists():
        pytest.skip(f"{folder} has no words of its own")
    english, chinese = (catalogue(STATIC / folder / f"words.{lang}.js") for lang in ("en", "zh"))
    assert len(english) > 20
    assert english.keys() == chinese.keys()
    for key, said in english.items():
        assert set(re.findall(r"\{\w+\}", said)) == set(re.findall(r"\{\w+\}", chinese[key])), key
        assert chinese[key].strip(), key


def test_every_sentence_that_is_asked_for_is_there():
    """Keys written out in the modules; those put together at run time are seen by the other tests."""
    known = catalogue(STATIC / "js" / "words.en.js")
    modules = [p for p in (STATIC / "js").rglob("*.js") if "admin" not in p.parts]
    for module in modules:
        for key in re.findall(r'\bt\("([^"]+)"', module.read_text()):
            assert key in known, f"{module.name} asks for {key}"


def test_no_module_has_a_way_to_paint_markup():
    for module in (STATIC / "js").rglob("*.js"):
        code = re.sub(r"/\*.*?\*/|//.*", "", module.read_text(), flags=re.S)
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser",
            code,
        )
        assert not found, f"{module.name}: {found}"
    for page in STATIC.glob("*.html"):
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script>|https?://", page.read_text())


def test_differences_are_of_words_and_of_chinese_characters(studio_of, browser):
    up = studio_of(
        [
            Item("en", "q", (Segment("the cat sat on a mat"), Segment("the dog sat on a red mat"))),
            Item("zh", "q", (Segment("水在一百度沸腾"), Segment("水在九十度沸腾"))),
        ]
    )
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        found = set()
        for _ in range(2):
            press(page, "d")
            words = (word.strip() for word in page.locator("mark").all_inner_texts())
            found.add(tuple(sorted(words)))
            page.keyboard.press("t")
        assert found == {
            ("cat", "dog", "red"),
            tuple(sorted(("一百", "九十"))),
        }


def test_the_browsers_modules_have_sound_types():
    """`make js`, where TypeScript can be had without asking the network for it."""
    if shutil.which("npx") is None:
        pytest.skip("there is no Node.js here, which the checker of types needs")
    done = subprocess.run(
        ["npx", "--offline", "--yes", "--package", "typescript@7.0.2", "tsc", "-p", "jsconfig.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "ENOTCACHED" in done.stderr or "EAI_AGAIN" in done.stderr:
        pytest.skip("TypeScript is not on this machine; `make js` fetches it")
    assert done.returncode == 0, done.stdout + done.stderr
