"""From a key press to the next item on the screen, in Chromium, with 500 ms of injected latency.

Real studio, real browser: pairs of answers are voted on by key, and the page's own
"answered-to-painted" measures are read, which end in the first task after the frame was painted. The
latency is that of Chromium's network emulation, for every request. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.store import FeedbackStore
from plaudit.studio.app import create_app
from plaudit.studio.server import StudioServer, listen
from plaudit.studio.settings import Serving, StudioSettings

WORDS = "the answer is longer than a line and **says** a thing or two with `code` in it, "
WATCH = """() => {
  window.taken = [];
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.taken.push(one.duration);
  }).observe({entryTypes: ["measure"]});
}"""


def items(num: int, length: int) -> list[Item]:
    """Pairs whose answers have about `length` characters of Markdown."""
    times = max(1, length // len(WORDS) // 4)
    text = "\n\n".join([WORDS * 4] * times)
    return [
        Item(f"item-{n}", f"Question {n}?", (Segment(f"{n} {text}"), Segment(f"{text} {n}")))
        for n in range(num)
    ]


def measured(address: str, token: str, num: int, latency: float, pause: float) -> list[float]:
    """Milliseconds of each vote."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{address}/join#{token}")
        page.locator("main button").click()
        page.locator("article").first.wait_for()
        devtools = page.context.new_cdp_session(page)
        devtools.send("Network.enable")
        devtools.send(
            "Network.emulateNetworkConditions",
            {
                "offline": False,
                "latency": latency,
                "downloadThroughput": -1,
                "uploadThroughput": -1,
            },
        )
        page.evaluate(WATCH)
        for n in range(num):
            page.wait_for_timeout(pause)
            page.keyboard.press(("ArrowLeft", "ArrowRight", "t", "b")[n % 4])
        page.wait_for_timeout(2000)
        taken = page.evaluate("window.taken")
        browser.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, default=100)
    parser.add_argument("--latency", type=float, default=500, help="ms for each request")
    parser.add_argument("--pause", type=float, default=600, help="ms between two votes")
    words = parser.parse_args()
    if shutil.which("chromium") is None:
        sys.exit("this benchmark needs chromium; on Debian: apt-get install chromium")
    print("length of an answer   votes   p50 ms   p95 ms   max ms")
    for length in (200, 2_000, 20_000):
        with (
            tempfile.TemporaryDirectory() as folder,
            FeedbackStore(Path(folder) / "feedback.sqlite") as store,
            closing(listen("127.0.0.1", 0)) as listener,
        ):
            store.add_items(items(words.votes + 20, length))
            serving = Serving("127.0.0.1", listener.getsockname()[1])
            app, studio = create_app(store, serving, StudioSettings(prefetch=3))
            server = StudioServer(app, studio)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                token = store.people.invite("bench")
                taken = measured(serving.address, token, words.votes, words.latency, words.pause)
            finally:
                server.stop()
                thread.join()
        half, most = np.percentile(taken, [50, 95])
        print(f"{length:>19,}   {len(taken):>5}   {half:>6.1f}   {most:>6.1f}   {max(taken):>6.1f}")


if __name__ == "__main__":
    main()
