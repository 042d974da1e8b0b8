"""Votes while the network is gone, the server dies, answers are lost, or the session ends.

The server is a real one, and so is what is cut: nothing here stands in for an answer of the API.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from plaudit.feedback.store import FeedbackStore
from studio.browsing import LOCK_MS, press, prompt, standing, until_saved, visiting
from studio.conftest import pairs
from studio.serving import Running

NO_DATABASE = "Object.defineProperty(window, 'indexedDB', {value: undefined})"


def preferences(store, rater):
    return {item: value["preference"] for item, (_, value) in standing(store, rater).items()}


def test_ten_votes_without_network_are_all_there_in_order_when_it_is_back(studio_of, browser):
    up = studio_of(pairs(14), prefetch=12)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        visit.network_is_cut = True
        visit.context.set_offline(True)
        questions = []
        for n in range(10):
            questions.append(prompt(page))
            press(page, "tb"[n % 2])
        press(page, "u")
        assert prompt(page) == questions[-1]
        press(page, "ArrowLeft")
        expect(page.locator("#unsaved")).to_contain_text("12 answers not yet saved", timeout=60_000)
        assert standing(up.store, "ann") == {}
        visit.context.set_offline(False)
        until_saved(page)
        expect(page.locator("#floats")).to_contain_text("Everything is saved")
        votes = [v for v in up.store.votes(active=False) if v.rater == "ann"]
        items = {item.key: item.prompt for item in pairs(14)}
        assert [items[v.item_key] for v in votes if v.kind != "undo"] == [*questions, questions[-1]]
        assert [v.kind for v in votes].count("undo") == 1
        assert len(preferences(up.store, "ann")) == 10


@pytest.mark.parametrize("script", [None, NO_DATABASE], ids=["IndexedDB", "localStorage"])
def test_what_was_not_sent_outlives_the_page(studio_of, browser, script):
    up = studio_of(pairs(8), prefetch=6)
    with visiting(browser, up, "ann") as visit:
        if script:
            visit.context.add_init_script(script)
        page = visit.work()
        visit.network_is_cut = True
        visit.context.set_offline(True)
        questions = []

        def has_all(request):
            return request.url.endswith("/votes") and len(request.post_data_json["votes"]) == 4

        # A request that begins while its page closes has the network back and outlives the page:
        # so it is closed behind an attempt with all four, while the next one waits.
        with page.expect_event("requestfailed", has_all):
            for _ in range(4):
                questions.append(prompt(page))
                press(page, "t")
        page.close()  # as a crash: nobody is asked whether they want to leave
        visit.context.set_offline(False)
        assert standing(up.store, "ann") == {}

        held, is_held = [], True

        def hold(route):
            if is_held:
                held.append(route)  # and nobody answers
            else:
                route.continue_()

        visit.context.route("**/api/v1/votes", hold)
        page = visit.work()
        assert prompt(page) not in questions  # what waits to be sent is not asked again
        assert standing(up.store, "ann") == {}
        is_held = False
        for route in held:
            route.abort()
        until_saved(page)
        items = {item.key: item.prompt for item in pairs(8)}
        votes = preferences(up.store, "ann")
        assert {items[key]: said for key, said in votes.items()} == dict.fromkeys(questions, "tie")


def test_a_vote_whose_acknowledgement_was_lost_is_one_vote(studio_of, browser):
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        lost = []

        def lose(route):
            """The server hears and keeps the votes; its answer never arrives."""
            if len(lost) < 2:
                lost.append(route.fetch().status)
                route.abort()
            else:
                route.continue_()

        page.route("**/api/v1/votes", lose)
        visit.network_is_cut = True
        press(page, "b", times=3)
        until_saved(page)
        assert lost == [200, 200]
        assert list(preferences(up.store, "ann").values()) == ["both_bad"] * 3
        assert len([v for v in up.store.votes(active=False) if v.rater == "ann"]) == 3


def test_the_next_item_does_not_wait_for_the_network(studio_of, browser):
    up = studio_of(pairs(6), prefetch=3)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.wait_for_timeout(LOCK_MS)
        held = []

        def hold(route):
            if len(held) < 2:
                held.append(route)  # and nobody answers
            else:
                route.continue_()

        page.route(re.compile("/api/v1/(votes|offers)$"), hold)
        questions = [prompt(page)]
        for _ in range(3):
            press(page, "t")
            questions.append(page.evaluate("document.querySelector('.prompt .prose').innerText"))
        assert len(set(questions)) == 4
        asked = sorted(route.request.url.rsplit("/")[-1] for route in held)
        assert asked == ["offers", "votes"]  # both still unanswered
        assert standing(up.store, "ann") == {}
        visit.network_is_cut = True
        for route in held:
            route.abort()
        until_saved(page)
        assert len(preferences(up.store, "ann")) == 3


@contextlib.contextmanager
def process(folder, port):
    """`plaudit studio` as a process that can be killed."""
    command = [sys.executable, "-m", "plaudit.cli.main", "studio", "--port", str(port)]
    store = folder / "feedback.sqlite"
    started = subprocess.Popen(
        [*command, "--store", str(store)], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    try:
        line = next(line for line in started.stdout if "http://" in line)
        yield started, re.search(r"http://[^/\s]+", line)[0]
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
        started.communicate()


def test_a_server_that_is_killed_and_comes_back_has_every_vote(tmp_path, browser):
    with FeedbackStore(tmp_path / "feedback.sqlite") as store:
        store.add_items(pairs(12))
        store.offers.configure(repeat_share=0.0)
        token = store.people.invite("ann")
    with contextlib.ExitStack() as stack:
        first, address = stack.enter_context(process(tmp_path, 0))
        up = Running(address, None, None)
        visit = stack.enter_context(visiting(browser, up, "ann", role=None))
        visit.network_is_cut = True
        page = visit.open(f"/join#{token}")
        page.get_by_role("button", name="Enter the studio").click()
        page.locator("article").first.wait_for()
        questions = []
        for n in range(6):
            if n == 3:
                first.kill()  # kill -9
                first.wait()
            questions.append(prompt(page))
            press(page, "ArrowRight")
        assert len(set(questions)) == 6
        expect(page.get_by_role("heading", name="Waiting for the network")).to_be_visible()
        stack.enter_context(process(tmp_path, urlsplit(address).port))
        until_saved(page)
        page.locator("article").first.wait_for()
        press(page, "t")
        until_saved(page)
    with FeedbackStore(tmp_path / "feedback.sqlite") as store:
        items = {item.key: item.prompt for item in pairs(12)}
        voted = [items[key] for key in standing(store, "ann")]
        assert sorted(voted[:6]) == sorted(questions)
        assert len(voted) == 7
        assert len(list(store.votes(active=False))) == 7


def test_a_session_that_ended_keeps_the_votes_until_its_person_enters_again(studio_of, browser):
    up = studio_of(pairs(8), prefetch=5)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        visit.network_is_cut = True  # the console reports the refusals
        cookies = visit.context.cookies()
        up.store.people.leave(cookies[0]["value"])
        up.studio.sessions.forget()
        press(page, "b")
        expect(page.get_by_role("heading", name="You are no longer entered")).to_be_visible()
        expect(page.locator("#unsaved")).to_contain_text("1 answer not yet saved")

        visit.context.clear_cookies()
        visit.name = "ben"
        visit.enter()
        page = visit.work()
        expect(page.locator("#floats")).to_contain_text("An unsaved answer of another")
        press(page, "t")
        until_saved(page)
        assert list(preferences(up.store, "ben").values()) == ["tie"]
        assert preferences(up.store, "ann") == {}

        visit.context.clear_cookies()
        visit.name = "ann"
        visit.enter()
        page = visit.work()
        until_saved(page)
        assert list(preferences(up.store, "ann").values()) == ["both_bad"]


def test_a_refused_vote_says_why_and_holds_nothing_up(studio_of, browser):
    up = studio_of(pairs(6))
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        page.evaluate(
            """() => new Promise((done) => {
              const open = indexedDB.open("plaudit");
              open.onsuccess = () => {
                const put = open.result.transaction("outbox", "readwrite").objectStore("outbox").add({
                  who: "ann", key: "0".repeat(32), offer: "of nobody", kind: "comparison",
                  value: {preference: "first"}, seconds: 1, visible_seconds: 1, at: Date.now()});
                put.onsuccess = () => { open.result.close(); done(); };
              };
            })"""
        )
        press(page, "t", times=2)
        expect(page.get_by_role("alert")).to_contain_text("refused an answer")
        until_saved(page)
        assert len(preferences(up.store, "ann")) == 2
        page.get_by_role("alert").get_by_role("button", name="Close").click()
        page.reload()
        page.locator("article").first.wait_for()
        expect(page.get_by_role("alert")).to_have_count(0)


def test_a_paused_person_is_told_so_and_loses_nothing(studio_of, browser):
    up = studio_of(pairs(8), prefetch=1)
    with visiting(browser, up, "ann") as visit:
        page = visit.work()
        visit.network_is_cut = True  # the console reports the refusal
        page.wait_for_timeout(LOCK_MS)
        up.store.people.pause("ann", True)
        up.studio.sessions.forget()
        press(page, "t", times=2)
        expect(page.get_by_role("heading", name="Your work is paused")).to_be_visible()
        until_saved(page)
        assert len(preferences(up.store, "ann")) == 2
