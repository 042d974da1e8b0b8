"""Pairs of clips in a real Chromium: films and strips play, and count once they were seen."""

from __future__ import annotations

import hashlib

import pytest

from plaudit.envs.clips import record_clips, strip_of
from plaudit.envs.settings import WorldSettings
from plaudit.envs.video import write_webm
from plaudit.feedback.entries import Item, Segment
from plaudit.feedback.media import Media
from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from studio.browsing import press, standing, until_saved, visiting
from studio.serving import running

FPS = 50


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """One pair of films and one of strips, which two annotators see."""
    pytest.importorskip("pygame")
    pytest.importorskip("imageio_ffmpeg")
    folder = tmp_path_factory.mktemp("clips")
    with FeedbackStore(folder / "feedback.sqlite") as store:
        media = Media.beside(store)
        films, strips = [], []
        world = WorldSettings(env="CartPole-v1")
        for clip in record_clips(world, None, 2, seed=0, seconds=0.32):
            frames = clip.frames
            assert (len(frames), clip.fps) == (16, FPS)
            write_webm(folder / "one.webm", frames, FPS)
            films.append(media.add((folder / "one.webm").read_bytes(), f"video/webm;fps={FPS}"))
            strips.append(media.add(*strip_of([frame[::2, ::2] for frame in frames], FPS)))
        for name, found in (("films", films), ("strips", strips)):
            parts = tuple(
                Segment("", kind="clip", model="m", extra={"media": one, "seed": 7})
                for one in found
            )
            store.add_items([Item(name, f"Which of these {name} does better?", parts)])
        with running(store, overlap=5, repeat_share=0.0, lease_seconds=60) as studio:
            yield studio


def digests(up, name):
    [item] = [item for item in up.store.items() if item.key == name]
    return [segment.extra["media"]["digest"] for segment in item.segments]


def vote_on_both(page, act):
    """The two items, in whatever order they were offered; what `act` found of each, by its kind."""
    found = {}
    for _ in range(2):
        page.locator(".answer video, .answer canvas").nth(1).wait_for()
        kind = "films" if page.locator("video").count() else "strips"
        found[kind] = act(page, kind)
        words = page.locator(".prompt .prose").inner_text()
        press(page, "ArrowLeft")
        page.wait_for_function(
            "was => document.querySelector('.prompt .prose')?.innerText !== was", arg=words
        )
    until_saved(page)
    return found


SEEN = """kind => [...document.querySelectorAll('.answer video, .answer canvas')].every(one =>
  kind === 'films' ? one.ended : Number(one.dataset.frame) === 15)"""


def test_films_and_strips_play_by_themselves_and_count_once_seen(up, browser):
    with visiting(browser, up, "ann") as visit:
        page = visit.work()

        def watch(page, kind):
            page.wait_for_function(SEEN, arg=kind)
            return page.evaluate("() => document.querySelector('video')?.videoWidth ?? 0")

        found = vote_on_both(page, watch)
        assert found == {"films": 600, "strips": 0}
    assert {name: kind for name, (kind, _) in standing(up.store, "ann").items()} == {
        "films": "comparison",
        "strips": "comparison",
    }


def test_nothing_moves_by_itself_for_who_wants_less_motion_and_no_vote_counts_before(up, browser):
    with visiting(browser, up, "calm", reduced_motion="reduce") as visit:
        page = visit.work()

        def step_through(page, kind):
            page.wait_for_timeout(400)
            assert not page.evaluate(SEEN, kind)
            at = page.evaluate("() => [...document.querySelectorAll('video, canvas')].map(one => one.currentTime ?? Number(one.dataset.frame))")  # fmt: skip
            assert at == [0, 0]
            press(page, "ArrowLeft")  # too early
            assert page.locator(".answer video, .answer canvas").count() == 2
            page.keyboard.press(".")
            page.wait_for_function("kind => [...document.querySelectorAll('video, canvas')].every(one => kind === 'films' ? Math.abs(one.currentTime - 1 / 50) < 1e-3 : one.dataset.frame === '1')", arg=kind)  # fmt: skip
            page.keyboard.press(",")
            page.wait_for_function("() => [...document.querySelectorAll('video, canvas')].every(one => (one.currentTime ?? Number(one.dataset.frame)) === 0)")  # fmt: skip
            page.locator(".answer video, .answer canvas").first.focus()
            page.keyboard.press(" ")  # plays the one that has the focus
            page.wait_for_function(
                "() => { const one = document.querySelector('.answer video, .answer canvas');"
                " return one.ended ?? one.dataset.frame === '15'; }"
            )
            page.keyboard.press("r")  # restarts both
            page.wait_for_function(SEEN, arg=kind)

        vote_on_both(page, step_through)
    assert len(standing(up.store, "calm")) == 2


# --- who may see a film ------------------------------------------------------------------------


def test_a_film_is_for_those_it_was_offered_to(up):
    [one, _] = digests(up, "films")
    with up.client() as nobody:
        assert nobody.get(f"/api/v1/media/{one}").status_code == 401
    with up.entered("stranger") as stranger:
        refused = stranger.get(f"/api/v1/media/{one}")
        assert (refused.status_code, refused.json()["detail"]) == (
            404,
            "there is no such film among your offers",
        )
        stranger.post("/api/v1/offers", json={"n": 2})
        shown = stranger.get(f"/api/v1/media/{one}")
        assert shown.status_code == 200
        assert hashlib.sha256(shown.content).hexdigest() == one
    for role in ("admin", "viewer"):
        with up.entered(role, role=role) as who:
            assert who.get(f"/api/v1/media/{one}").status_code == 200


def test_a_film_is_sent_in_parts_kept_for_ever_and_never_run(up):
    [one, _] = digests(up, "films")
    with up.entered("parts") as client:
        client.post("/api/v1/offers", json={"n": 2})
        whole = client.get(f"/api/v1/media/{one}")
        assert whole.headers["content-type"] == "video/webm"
        assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert whole.headers["x-content-type-options"] == "nosniff"
        part = client.get(f"/api/v1/media/{one}", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
        beyond = client.get(f"/api/v1/media/{one}", headers={"Range": "bytes=9999999-"})
        assert beyond.status_code == 416


@pytest.mark.parametrize("name", ["..%2ffeedback.sqlite", "feedback.sqlite", "%00", "A" * 64, "0" * 64, "-" * 64])  # fmt: skip
def test_what_is_no_film_is_not_found(up, name):
    with up.entered("admin", role="admin") as client:
        assert client.get(f"/api/v1/media/{name}").status_code in (404, 422)


def test_the_page_hears_nothing_of_a_clip_but_its_film(up):
    with up.entered("looks") as client:
        offers = client.post("/api/v1/offers", json={"n": 2}).json()["offers"]
        for offer in offers:
            for segment in offer["segments"]:
                assert set(segment["media"]) == {"digest", "type"}
        assert "seed" not in str(offers)


def test_films_are_kept_once_and_only_what_browsers_show(tmp_path):
    media = Media(tmp_path / "films")
    first = media.add(b"abc", "video/webm;fps=5")
    assert media.add(b"abc", "video/webm;fps=5") == first
    assert [one.name for one in (tmp_path / "films").iterdir()] == [f"{first['digest']}.webm"]
    assert media.find(first["digest"])[1] == "video/webm"
    assert media.find("f" * 64) is None
    with pytest.raises(UserError, match="of type 'text/html' is not kept"):
        media.add(b"<script>", "text/html")
