"""What the streams and the file system take: names and texts in any locale, and no traceback for it."""

from __future__ import annotations

import codecs
import os
import sys
from typing import Any

WRITTEN = "plaudit"
"""The name of our error handler."""


def begin_again_in_utf8() -> None:
    """Replaces this process by one in Python's UTF-8 mode where names of files are taken for ASCII.

    So it is in the C locale with that mode switched off (PYTHONUTF8=0): a name such as pé.jsonl is
    then no text, and neither tokenizers nor databases could be given it. The words are the same.
    """
    if sys.getfilesystemencoding() in ("utf-8", "utf8") or sys.flags.utf8_mode:
        return
    if codecs.lookup(sys.getfilesystemencoding()).name != "ascii" or sys.flags.ignore_environment:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, words, os.environ | {"PYTHONUTF8": "1"})


def is_text(word: str) -> bool:
    """False where a word holds what stands for bytes that are not text, as a name in Latin-1 does."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def write_what_can_be(stream: Any) -> None:
    """From now on a character that the stream's encoding lacks is written as ?, not refused.

    What stands for a byte of a file's name that is not text is written as that byte.
    """
    codecs.register_error(WRITTEN, _replaced)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=WRITTEN)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    codes = [ord(character) for character in error.object[error.start : error.end]]
    written = bytes(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else ord("?") for code in codes)
    return written, error.end
