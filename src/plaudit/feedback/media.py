"""Films and pictures beside a store, each a file named by the SHA-256 of what is in it.

A segment says which is its own: `extra["media"] = {"digest", "type"}`. The same bytes are kept once, a
file is there whole or not at all, and none is ever changed. Beside `feedback.sqlite` they lie in the
folder `feedback.media`; a store in a server's database keeps them in `media` where Plaudit was started.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plaudit.feedback.store import FeedbackStore
from plaudit.records.errors import UserError
from plaudit.records.files import replacing

ENDINGS = {"video/webm": ".webm", "image/png": ".png", "video/mp4": ".mp4", "image/gif": ".gif"}
"""What may be kept: what a browser shows and never runs."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Media:
    """The films of a store."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def beside(cls, store: FeedbackStore) -> Media:
        """Those that belong to a store."""
        if "://" in store.name:
            return cls("media")
        return cls(Path(store.name).with_suffix(".media"))

    def add(self, data: bytes, kind: str) -> dict[str, str]:
        """Keep a film; what a segment's `extra["media"]` must be. `kind` is its media type."""
        ending = ENDINGS.get(kind.partition(";")[0])
        if ending is None:
            raise UserError(f"a film of type {kind!r} is not kept, expected {', '.join(ENDINGS)}")
        digest = hashlib.sha256(data).hexdigest()
        target = self.folder / f"{digest}{ending}"
        if not target.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(target) as file:
                file.write(data)
        return {"digest": digest, "type": kind}

    def find(self, digest: str) -> tuple[Path, str] | None:
        """The file of this digest and its media type, where there is one."""
        if not _DIGEST.fullmatch(digest):
            return None
        for kind, ending in ENDINGS.items():
            path = self.folder / f"{digest}{ending}"
            if path.is_file():
                return path, kind
        return None


def digest_of(extra: Mapping[str, Any]) -> str | None:
    """The digest of a segment's film, if it has one."""
    media = extra.get("media")
    found = media.get("digest") if isinstance(media, Mapping) else None
    return found if isinstance(found, str) else None
