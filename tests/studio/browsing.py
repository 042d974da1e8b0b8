"""A real browser for tests: Chromium by Playwright, and everything a page must not do.

A visit fails its test where the page broke its own security policy, asked anything of another host,
threw an error or wrote one to the console. Tests that cut the network on purpose say so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from plaudit.feedback.store import FeedbackStore
from studio.serving import Running

LOCK_MS = 260
"""A little longer than an item is locked after it appeared (250 ms)."""
PATIENCE_MS = 60_000
"""How long a page is waited for: no test ends because the machine is busy."""
SCHEMES_WITHOUT_HOST = ("data", "blob", "about")
OF_A_CUT_NETWORK = re.compile("Failed to load resource")


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window; skips, with a sentence, where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("the pages are tested in Chromium, and there is no `chromium` on this machine")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """Somebody in a browser of their own (a context): pages, and what was wrong with them."""

    up: Running
    context: BrowserContext
    name: str
    network_is_cut: bool = False
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Hear of everything that must not happen."""
        self.context.on("console", lambda message: self._hear(message.type, message.text))
        self.context.on("weberror", lambda error: self.faults.append(f"threw {error.error}"))
        self.context.on("request", lambda request: self._ask(request.url))
        self.context.expose_function("heard", lambda said: self.faults.append(said))
        self.context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (e) =>"
            " heard(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sample}`))"
        )

    def _hear(self, kind: str, text: str) -> None:
        if self.network_is_cut and OF_A_CUT_NETWORK.search(text):
            return
        if kind in ("error", "warning"):
            self.faults.append(f"console: {text}")

    def _ask(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in SCHEMES_WITHOUT_HOST:
            return
        if parts.netloc != urlsplit(self.up.address).netloc:
            self.faults.append(f"foreign request: {url}")

    def enter(self, role: str = "annotator") -> None:
        """Exchange an invitation for the cookie, as the join page does."""
        token = self.up.store.people.invite(self.name, role=role)
        said = self.context.request.post(
            f"{self.up.address}/api/v1/join",
            data={"token": token},
            headers={"Origin": self.up.address, "X-Plaudit": "1"},
        )
        assert said.ok, said.text()

    def open(self, path: str = "/") -> Page:
        page = self.context.new_page()
        page.goto(f"{self.up.address}{path}")
        return page

    def work(self) -> Page:
        """The annotator's page with an item on it."""
        page = self.open("/")
        page.locator("article, textarea").first.wait_for()
        return page


@contextlib.contextmanager
def visiting(
    browser: Browser, up: Running, name: str, *, role: str | None = "annotator", **options: Any
) -> Iterator[Visit]:
    """A visit of `name`, who has entered unless `role` is None; its faults fail the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(up, context, name)
    visit.watch()
    try:
        if role is not None:
            visit.enter(role)
        yield visit
        for page in context.pages:
            page.wait_for_timeout(20)  # for late reports
        assert not visit.faults, visit.faults
    finally:
        context.close()


def press(page: Page, key: str, *, times: int = 1) -> None:
    """Press a key once the item has been there long enough for a key to count."""
    for _ in range(times):
        page.wait_for_timeout(LOCK_MS)
        page.keyboard.press(key)


def prompt(page: Page) -> str:
    """The words of the prompt that is shown."""
    return page.locator(".prompt .prose").inner_text()


def until_saved(page: Page) -> None:
    """Wait until the page holds no vote that the server has not acknowledged."""
    page.locator("#unsaved[data-n='0']").wait_for(state="attached")


def standing(store: FeedbackStore, rater: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """{item: (kind, value)} of the votes of a person that stand; fails where two stand for one."""
    found = [vote for vote in store.votes() if vote.rater == rater]
    assert len({vote.item_key for vote in found}) == len(found)
    return {vote.item_key: (vote.kind, vote.value) for vote in found}
