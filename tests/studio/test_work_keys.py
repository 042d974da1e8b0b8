"""Every key of the annotator's page, and every press that must not be one."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from plaudit.feedback.entries import Item, Segment
from studio.browsing import LOCK_MS, press, prompt, standing, until_saved, visiting
from studio.conftest import pairs

LONG = "\n\n".join(f"Paragraph {n}." for n in range(80))


def asking(ask, num=1, count=3):
    """Items of one kind of question, with `num` answers each."""
    return [
        Item(
            f"{ask}-{n}", f"question {n}",
            tuple(Segment(f"answer {n} {m}") for m in range(num)), {"ask": ask},
        )
        for n in range(count)
    ]  # fmt: skip


def only_vote(page, up, rater="ann"):
    """(kind, value) of the only vote that stands, once it is saved."""
    until_saved(page)
    ((kind, value),) = standing(up.store, rater).values()
    return kind, value


@pytest.mark.parametrize(
    ("key", "said"),
    [("ArrowLeft", 0), ("ArrowRight", 1), ("t", "tie"), ("T", "tie"), ("b", "both_bad")],
)
def test_a_key_is_a_vote_and_on(studio_of, browser, key, said):
    up = studio_of(pairs(3))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        question = prompt(page)
        shown = page.locator("article .prose").all_inner_texts()
        press(page, key)
        assert prompt(page) != question
        _, value = only_vote(page, up)
        if isinstance(said, int):
            said = shown[said][-1]  # "answer 2a" was stored as a
        assert value["preference"] == said


def test_keys_open_and_close_what_they_say(studio_of, browser):
    up = studio_of(pairs(3), guidelines="Prefer **true** answers.")
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        press(page, "g")
        expect(page.get_by_role("dialog", name="Guidelines").locator("strong")).to_have_text("true")
        page.keyboard.press("t")  # belongs to the panel now
        page.keyboard.press("Escape")
        press(page, "?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        press(page, "d")
        assert page.locator("mark").count() > 0
        page.keyboard.press("d")
        assert page.locator("mark").count() == 0
        press(page, "f")
        page.get_by_label("What is wrong with it?").fill("both are empty")
        page.keyboard.press("Control+Enter")
        assert only_vote(page, up) == ("flag", {"text": "both are empty"})


@pytest.mark.parametrize("digit", [1, 4, 7])
def test_a_digit_is_a_score_in_0_1(studio_of, browser, digit):
    up = studio_of(asking("score"))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        press(page, "9")  # there are seven
        press(page, str(digit))
        kind, value = only_vote(page, up)
        assert (kind, value["segment"]) == ("score", 0)
        assert value["score"] == pytest.approx((digit - 1) / 6)


def test_the_slider_keeps_its_arrows_and_saves_by_enter(studio_of, browser):
    up = studio_of(asking("score"))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        slider = page.get_by_role("slider")
        slider.focus()
        page.wait_for_timeout(LOCK_MS)
        for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft"):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        assert only_vote(page, up)[1]["score"] == pytest.approx(0.52)


def test_answers_are_ranked_with_a_tie(studio_of, browser):
    up = studio_of(asking("rank", num=4))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        shown = [int(text[-1]) for text in page.locator("article .prose").all_inner_texts()]
        press(page, "2")  # A second, B first, C as B, D third
        page.keyboard.press("Enter")
        expect(page.locator("#floats")).to_contain_text("3 answers have no place yet")
        page.keyboard.press("1")
        page.keyboard.press("=")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Backspace")
        page.keyboard.press("=")
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        kind, value = only_vote(page, up)
        assert kind == "ranking"
        groups = [sorted(group) for group in value["ranking"]]
        a, b, c, d = shown
        assert groups == [sorted([b, c]), [a], [d]]


def test_words_and_edits_are_saved_by_control_and_enter(studio_of, browser):
    up = studio_of([*asking("words", num=2, count=1), *asking("edit", count=1)])
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        for num_before in range(2):
            press(page, "Control+Enter")  # nothing was written yet
            until_saved(page)
            assert len(standing(up.store, "ann")) == num_before
            page.keyboard.press("Control+End")
            page.keyboard.type(" better?")
            press(page, "Control+Enter")
        until_saved(page)
        votes = dict(standing(up.store, "ann").values())
        assert votes["words"] == {"segment": None, "text": "better?"}
        assert votes["edit"] == {"segment": 0, "text": "answer 0 0 better?"}


def test_a_field_gets_every_letter_and_escape_leaves_it(studio_of, browser):
    up = studio_of(asking("words", num=1))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        text = "tbsfud?g 12= stu"
        page.keyboard.type(text)
        for key in ("ArrowLeft", "ArrowRight", " "):
            page.keyboard.press(key)
        expect(page.get_by_label("Your words")).to_have_value(text + " ")
        assert standing(up.store, "ann") == {}
        page.keyboard.press("Escape")
        question = prompt(page)
        page.keyboard.press("s")
        assert prompt(page) != question
        assert only_vote(page, up)[0] == "skip"


def test_chinese_being_composed_is_no_key(studio_of, browser):
    up = studio_of(asking("words", num=1))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        devtools = visit.context.new_cdp_session(page)
        devtools.send(
            "Input.imeSetComposition", {"text": "hao", "selectionStart": 3, "selectionEnd": 3}
        )
        page.evaluate(
            """() => {
              const press = (target, init) =>
                target.dispatchEvent(new KeyboardEvent("keydown", {bubbles: true, ...init}));
              const field = document.querySelector("textarea");
              press(field, {key: "Enter", ctrlKey: true, isComposing: true});
              press(field, {key: "Escape", isComposing: true});
              press(document.body, {key: "s", isComposing: true});
              press(document.body, {key: "Process", keyCode: 229});
            }"""
        )
        expect(page.get_by_label("Your words")).to_be_focused()
        devtools.send("Input.insertText", {"text": "好"})
        expect(page.get_by_label("Your words")).to_have_value("好")
        assert standing(up.store, "ann") == {}
        page.keyboard.press("Control+Enter")
        assert only_vote(page, up)[1]["text"] == "好"


def test_a_held_key_votes_once(studio_of, browser):
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        for _ in range(8):  # Chromium marks all but the first as repeats
            page.keyboard.down("ArrowLeft")
            page.wait_for_timeout(LOCK_MS // 2)
        page.keyboard.up("ArrowLeft")
        only_vote(page, up)


def test_nothing_counts_in_the_first_quarter_of_a_second(studio_of, browser):
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        page.evaluate(
            """() => {
              for (let i = 0; i < 5; i++)
                document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "t", bubbles: true}));
              document.querySelector(".choices button").click();
            }"""
        )
        only_vote(page, up)


def test_keys_of_the_browser_stay_with_it(studio_of, browser):
    items = [Item(f"long-{n}", LONG, (Segment(LONG), Segment(LONG))) for n in range(2)]
    up = studio_of(items)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        for key in ("Space", "ArrowDown", "PageDown"):
            before = page.evaluate("scrollY")
            page.keyboard.press(key)
            for _ in range(300):
                if page.evaluate("scrollY") > before:
                    break
                page.wait_for_timeout(10)
            assert page.evaluate("scrollY") > before
        for key in ("Control+s", "Alt+b", "Meta+t", "Control+u", "Tab", "Home"):
            page.keyboard.press(key)
        assert standing(up.store, "ann") == {}
        page.get_by_role("button", name="Both bad").focus()
        page.keyboard.press("Space")
        assert only_vote(page, up)[1]["preference"] == "both_bad"


def test_another_key_is_kept_for_all_devices(studio_of, browser):
    up = studio_of(pairs(4))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        press(page, "?")
        dialog = page.get_by_role("dialog")
        row = dialog.get_by_role("button", name="Tie: T")
        row.click()
        page.keyboard.press("b")
        expect(dialog).to_contain_text("“B” already stands for “Both bad”.")
        row.click()
        page.keyboard.press("ArrowDown")
        expect(dialog).to_contain_text("belongs to the browser")
        page.keyboard.press("e")
        expect(dialog.get_by_role("button", name="Tie: E")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Tie").locator("kbd")).to_have_text("E")
    with visiting(browser, up, "ann") as other:
        page = other.work()
        press(page, "t")  # no longer
        press(page, "e")
        assert only_vote(page, up)[1]["preference"] == "tie"


def test_letters_can_be_switched_off_and_arrows_stay(studio_of, browser):
    up = studio_of(pairs(4))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        press(page, "?")
        page.get_by_label("Letters, digits and signs work as keys").uncheck()
        page.keyboard.press("Escape")
        tie = page.get_by_role("button", name="Tie")
        expect(tie.locator("kbd")).to_have_count(0)
        page.reload()
        page.locator("article").first.wait_for()
        question = prompt(page)
        press(page, "t")
        for key in "bsfdg?1":
            page.keyboard.press(key)
        assert prompt(page) == question
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.keyboard.press("ArrowLeft")
        assert prompt(page) != question


def test_strength_is_asked_where_the_admin_wants_it(studio_of, browser):
    up = studio_of(pairs(4), strength=True)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        question = prompt(page)
        press(page, "ArrowLeft")
        expect(page.get_by_role("group", name="How much better is A?")).to_be_visible()
        assert prompt(page) == question
        page.keyboard.press("7")
        assert only_vote(page, up)[1]["strength"] == 7
        press(page, "ArrowRight")
        page.keyboard.press("ArrowRight")  # again: without a strength
        until_saved(page)
        strengths = [value.get("strength") for _, value in standing(up.store, "ann").values()]
        assert sorted(strengths, key=str) == [7, None]
