"""`plaudit studio`: opens the pages where people compare, score, rank and correct answers."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from plaudit.cli.words import Parser
from plaudit.records.errors import UserError
from plaudit.records.visible import visible

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore
    from plaudit.studio.settings import Serving

STORE = "feedback.sqlite"
ADMIN = "admin"
"""Whom the link printed at the start lets in."""


def main(argv: list[str]) -> int:
    """Serves until it is told to end; returns 0."""
    words = _parser().parse_args(argv)
    try:
        import markdown_it  # noqa: F401 - a page needs it later, and must not fail then

        from plaudit.studio.server import listen
        from plaudit.studio.settings import Serving, checked_public
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("plaudit"):
            raise
        raise UserError(f"the studio needs {error.name!r}: pip install 'plaudit[studio]'") from None
    if not 0 <= words.port <= 65535:
        raise UserError(f"--port is {words.port}, expected 0 (any that is free) to 65535")
    public = None if words.public is None else checked_public(words.public)
    where = words.store or _store_of_run(words.run) or STORE
    _check_reach(words, public)
    with contextlib.closing(listen(words.host, words.port)) as listener, _opened(where) as store:
        if words.file is not None:
            _import(store, words.file)
        if words.clips is not None:
            _add_clips(store, words)
        _check_accounts(store, words)
        port = listener.getsockname()[1]
        serving = Serving(words.host, port, public)
        _say(store, serving, words.invite)
        link = f"{serving.address}/join#{store.people.invite(ADMIN, role='admin', days=1)}"
        print(f"  open as {ADMIN} (once, within a day): {link}", flush=True)
        with _browser(link) if words.open else contextlib.nullcontext():
            _serve(store, serving, listener)
    print(visible(f"The studio is closed; every vote that was confirmed is in {store.name}."))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("plaudit studio", description=__doc__)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--run", metavar="RUN", help="the store of this run, by name or folder")
    place.add_argument(
        "--store",
        help=f"SQLite file or database URL (default: that of the last run below runs/, else {STORE})",
    )
    parser.add_argument("--port", type=int, default=8080, help="default: 8080; 0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument(
        "--public",
        metavar="URL",
        help="the address that people use, where a proxy with TLS stands in front",
    )
    parser.add_argument(
        "--insecure-http",
        action="store_true",
        help="listen beyond this machine without TLS: whoever shares the network can read along",
    )
    parser.add_argument("--import", dest="file", metavar="FILE", help="feedback to put in first")
    parser.add_argument(
        "--clips", metavar="ENV", help="pairs of clips of this Gymnasium world to compare"
    )
    parser.add_argument(
        "--agent", metavar="RUN", help="whose clips: a run, or a saved agent (default: at random)"
    )
    parser.add_argument("--num-clips", type=int, default=20, help="pairs of clips (default: 20)")
    parser.add_argument(
        "--clip-seconds",
        type=float,
        metavar="S",
        help="how long each is (default: 1.5, or shorter)",
    )
    parser.add_argument(
        "--invite",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="print a link for each of these annotators",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def _add_clips(store: FeedbackStore, words: argparse.Namespace) -> None:
    from plaudit.studio.clips import add_clips

    num, steps = add_clips(
        store, words.clips, agent=words.agent, num=words.num_clips, seconds=words.clip_seconds
    )
    print(visible(f"{num} new pairs of clips of {words.clips}, {steps} steps each"), flush=True)


def _check_reach(words: argparse.Namespace, public: str | None) -> None:
    """UserError where the port would be open to others, and nobody said that it may."""
    from plaudit.studio.settings import is_loopback

    if is_loopback(words.host):
        return
    if not words.insecure_http:
        raise UserError(
            f"--host {words.host} opens the studio to the network without TLS, where votes and "
            "sessions can be read along: put a proxy with TLS in front of 127.0.0.1 and name its "
            "address by --public, or accept it with --insecure-http"
        )


def _check_accounts(store: FeedbackStore, words: argparse.Namespace) -> None:
    from plaudit.studio.settings import is_loopback

    if not is_loopback(words.host) and not words.invite and not store.people.annotators():
        raise UserError(
            f"--host {words.host} opens the studio to the network, and nobody has an account yet: "
            "invite somebody with --invite NAME"
        )


def _store_of_run(name: str | None) -> str | Path | None:
    """Where a run keeps its feedback: the one named, or the one that was begun last, if any."""
    from plaudit.records.runs import RUNS, RunFolder

    if name is not None:
        found = _store_of(RunFolder.open(name).path)
        if found is None:
            raise UserError(f"the run {name} keeps no feedback (yet)")
        return found
    folders = [path.parent for path in RUNS.glob("*/config.yaml")]
    for folder in sorted(folders, key=lambda f: (f / "config.yaml").stat().st_mtime, reverse=True):
        if (found := _store_of(folder)) is not None:
            return found
    return None


def _store_of(folder: Path) -> str | Path | None:
    import yaml

    if (folder / STORE).is_file():
        return folder / STORE
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        named = config["feedback"]["store"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    if not isinstance(named, str):
        return None
    if "://" in named:
        return named
    from plaudit.records.runs import RunFolder

    path = RunFolder(folder).began_in() / named
    return path if path.is_file() else None


@contextlib.contextmanager
def _opened(where: str | Path) -> Iterator[FeedbackStore]:
    from plaudit.feedback.store import FeedbackStore

    store = FeedbackStore(where)
    try:
        yield store
    finally:
        store.close()


def _import(store: FeedbackStore, file: str) -> None:
    from plaudit.feedback.exchange import import_feedback

    done = import_feedback(store, file)
    print(
        visible(
            f"{file}: {done.num_rows} rows read; {done.num_items} items and {done.num_votes} votes"
            " are new"
        )
    )
    for note in done.notes:
        print(visible(f"  {note}"))


def _say(store: FeedbackStore, serving: Serving, invited: list[str]) -> None:
    from plaudit.feedback.database import sqlite_advice

    items, votes = (
        f"{num} {what}{'' if num == 1 else 's'}"
        for num, what in zip(store.size(), ("item", "vote"), strict=True)
    )
    print(visible(f"{store.name}: {items}, {votes}"))
    print(visible(f"The studio is at {serving.address} (Ctrl-C ends it)"))
    if "://" not in store.name and (advice := sqlite_advice()) is not None:
        print(f"  {advice}.")
    if not serving.is_local and not serving.is_secure:
        print("  Without TLS: whoever shares the network can read votes and sessions along.")
    for name in invited:
        link = f"{serving.address}/join#{store.people.invite(name)}"
        print(visible(f"  for {name} (once, within 7 days): {link}"))


def _serve(store: FeedbackStore, serving: Serving, listener: object) -> None:
    from plaudit.studio.app import create_app
    from plaudit.studio.server import StudioServer, serve

    app, studio = create_app(store, serving)
    serve(StudioServer(app, studio), listener)  # type: ignore[arg-type]


@contextlib.contextmanager
def _browser(link: str) -> Iterator[None]:
    """Opens the link in the browser by way of a file that only this user can read.

    The words of a command can be read by everybody on the machine, and the link lets in.
    """
    handle, name = tempfile.mkstemp(prefix="plaudit-", suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={link}">')
    try:
        webbrowser.open(Path(name).as_uri())
        yield
    finally:
        Path(name).unlink(missing_ok=True)
