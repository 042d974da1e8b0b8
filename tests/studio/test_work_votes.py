"""An annotator at work: by link, by keys, through reloads, in two tabs, and two people at once."""

from __future__ import annotations

from playwright.sync_api import expect

from studio.browsing import press, prompt, standing, until_saved, visiting
from studio.conftest import pairs


def all_votes(store, rater):
    """Every vote of a person, those taken back and undoings included."""
    return [v for v in store.votes(active=False) if v.rater == rater]


def test_a_link_lets_in_once_and_leads_to_the_work(studio_of, browser):
    up = studio_of(pairs(3))
    with visiting(browser, up, "ann", role=None) as visit:
        link = up.link("ann")
        page = visit.open(link.removeprefix(up.address))
        page.get_by_role("button", name="Enter the studio").click()
        expect(page.locator("article")).to_have_count(2)
        assert page.url == f"{up.address}/"
        page.goto(link)
        page.get_by_role("button", name="Enter the studio").wait_for()
        visit.network_is_cut = True  # the console reports the refusal
        page.get_by_role("button", name="Enter the studio").click()
        expect(page.get_by_role("alert")).to_contain_text("link")


def test_twenty_pairs_by_keys_with_undo_skip_and_reload(studio_of, browser):
    up = studio_of(pairs(21))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        seen = []
        said = {}
        for n in range(21):
            seen.append(prompt(page))
            if n == 7:
                press(page, "s")
                continue
            if n == 12:
                before = prompt(page)
                page.reload()
                page.locator("article").first.wait_for()
                assert prompt(page) == before  # a reload gives nothing back
            if n == 15:
                press(page, "t")
                press(page, "u")
                assert prompt(page) == seen[-1]
            key = ("ArrowLeft", "ArrowRight", "t", "b")[n % 4]
            shown = page.locator("article .prose").all_inner_texts()
            said[prompt(page)] = (key, shown)
            press(page, key)
        expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
        until_saved(page)
        assert len(set(seen)) == 21

        items = {item.prompt: item for item in pairs(21)}
        votes = standing(up.store, "ann")
        assert [kind for kind, _ in votes.values()].count("comparison") == 20
        for question, (key, shown) in said.items():
            item = items[question]
            kind, value = votes[item.key]
            assert kind == "comparison"
            if key in ("t", "b"):
                assert value["preference"] == {"t": "tie", "b": "both_bad"}[key]
            else:
                wanted = shown[0 if key == "ArrowLeft" else 1]
                assert item.segments["ab".index(value["preference"])].text == wanted
        kinds = [v.kind for v in all_votes(up.store, "ann")]
        assert (kinds.count("comparison"), kinds.count("skip"), kinds.count("undo")) == (21, 1, 1)
        assert all(
            0 < v.visible_seconds <= v.seconds < 60
            for v in all_votes(up.store, "ann")
            if v.kind != "undo"
        )


def test_what_was_done_before_a_reload_is_taken_back_by_the_server(studio_of, browser):
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        first = prompt(page)
        press(page, "ArrowLeft")
        second = prompt(page)
        press(page, "ArrowRight")
        until_saved(page)
        page.reload()
        page.locator("article").first.wait_for()
        for question in (second, first):
            press(page, "u")
            expect(page.locator(".prompt .prose")).to_have_text(question)
        assert standing(up.store, "ann") == {}
        press(page, "u")
        expect(page.locator("#floats")).to_contain_text("nothing to take back")
        press(page, "t")
        until_saved(page)
        assert [value["preference"] for _, value in standing(up.store, "ann").values()] == ["tie"]


def test_two_people_at_once_get_different_items_and_do_all_of_them(studio_of, browser):
    up = studio_of(pairs(16))
    with visiting(browser, up, "ann") as ann, visiting(browser, up, "ben") as ben:
        pages = [ann.work(), ben.work()]
        for _ in range(16):
            for page in pages:
                if page.locator("article").count():
                    press(page, "ArrowLeft")
            if not any(page.locator("article").count() for page in pages):
                break
        for page in pages:
            expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
            until_saved(page)
        by_ann, by_ben = standing(up.store, "ann"), standing(up.store, "ben")
        assert by_ann.keys() | by_ben.keys() == {item.key for item in pairs(16)}
        assert len(by_ann) + len(by_ben) == 16


def test_two_tabs_of_one_person_never_show_the_same_item(studio_of, browser):
    up = studio_of(pairs(12))
    with visiting(browser, up, "ann") as visit:
        pages = [visit.work(), visit.work()]
        seen = []
        for _ in range(5):
            questions = [prompt(page) for page in pages]
            assert len(set(questions)) == 2
            seen += questions
            for page in pages:
                press(page, "ArrowRight")
        assert len(set(seen)) == 10
        for page in pages:
            until_saved(page)
        assert len(standing(up.store, "ann")) == 10


def test_without_locks_the_newest_tab_works_and_the_other_says_so(studio_of, browser):
    """A page served without TLS to another machine is no secure context and has no Web Locks."""
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        visit.context.add_init_script(
            "Object.defineProperty(Navigator.prototype, 'locks', {value: undefined});"
            "Object.defineProperty(Crypto.prototype, 'randomUUID', {value: undefined});"
        )
        old, new = visit.work(), visit.work()
        expect(old.get_by_role("heading", name="another tab")).to_be_visible()
        press(old, "t")
        press(new, "b")
        until_saved(new)
        assert [v["preference"] for _, v in standing(up.store, "ann").values()] == ["both_bad"]
        old.get_by_role("button", name="Go on here").click()
        old.locator("article").first.wait_for()
        expect(new.get_by_role("heading", name="another tab")).to_be_visible()


def test_closing_gives_back_what_was_not_seen_and_leaving_gives_back_all(studio_of, browser):
    up = studio_of(pairs(4))
    with visiting(browser, up, "ann") as ann:
        page = ann.work()
        question = prompt(page)
        assert len(up.store.offers.mine("ann")) == 4
        page.goto(f"{up.address}/join")
        page.get_by_role("link", name="Go on as ann").wait_for()
        assert [offer.prompt for offer in up.store.offers.mine("ann")] == [question]
        page.get_by_role("link", name="Go on as ann").click()
        page.locator("article").first.wait_for()
        assert prompt(page) == question
        page.get_by_role("button", name="Leave the studio").click()
        page.get_by_label("Your link").wait_for()
        assert up.store.offers.mine("ann") == []


def test_a_text_being_written_keeps_its_item(studio_of, browser):
    items = [
        type(item)(item.key, item.prompt, item.segments, {"ask": "words"}) for item in pairs(3)
    ]
    up = studio_of(items)
    with visiting(browser, up, "ann") as ann:
        page = ann.work()
        question = prompt(page)
        page.get_by_label("Your words").fill("half a thought")
        page.goto(f"{up.address}/join")
        page.get_by_role("link", name="Go on as ann").click()
        expect(page.get_by_label("Your words")).to_have_value("half a thought")
        assert prompt(page) == question
        press(page, "Control+Enter")
        until_saved(page)
        assert [value["text"] for _, value in standing(up.store, "ann").values()] == [
            "half a thought"
        ]


def test_nobody_is_told_that_all_is_done_while_something_comes_later(studio_of, browser):
    up = studio_of(pairs(1))
    with visiting(browser, up, "ann") as ann:
        page = ann.work()
        press(page, "ArrowLeft")
        expect(page.get_by_role("heading", name="All done for now")).to_be_visible()
        until_saved(page)
        up.store.add_items(pairs(2, start=1))
        page.get_by_role("button", name="Look again now").click()
        expect(page.locator("article")).to_have_count(2)
